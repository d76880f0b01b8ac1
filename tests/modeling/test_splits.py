"""Folds of days, last items and lists: which sessions train, which test, and who or what is cold."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml

from modeling.config import EvaluationConfig, ModelConfig, SplitConfig, TrainingConfig
from modeling.evaluation.rank_table import _returning
from modeling.sessions import Sessions
from modeling.splits import folds, split_sessions
from modeling.stages import evaluate, train
from modeling.stages.listed import read_split
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import read_dataset
from schemas.errors import InputError, parse
from schemas.features import FeatureSchema

START = datetime(2026, 1, 1, tzinfo=UTC)
TRAINING = TrainingConfig(epochs=1, evaluations=1, tokens_per_step=64, learning_rate=1e-3, threads=1)
TINY = ModelConfig.model_validate({"body": {"dim": 8, "num_layers": 1}})


def prepared_at(folder: Path, split: str = "day", more: str = "") -> Manifest:
    """Six days: each day u0 to u4 read three items, and a user of that day alone reads `day` and another item of that day."""
    rows = [
        (f"u{user}", f"i{(user + step) % 6}", START + timedelta(days=day, minutes=user, seconds=step), step)
        for day in range(6)
        for user in range(5)
        for step in range(3)
    ]
    for day in range(6):
        rows += [
            (f"new{day}", item, START + timedelta(days=day, hours=1, seconds=step), step)
            for step, item in enumerate(["i1", f"of{day}"])
        ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "step"], orient="row")
    folder.mkdir(parents=True)
    events.write_parquet(folder / "events.parquet")
    sessions = "" if split == "day" else "sessions: {rule: history}\n"
    (folder / "shop.yaml").write_text(
        f"name: shop\nsplit: {split}\n{sessions}"
        "events: {path: events.parquet, columns: {user_id: user_id, item_id: item_id, timestamp: timestamp, step: step}}\n"
        + more
    )
    dataset = read_dataset(str(folder / "shop.yaml")).at(folder)
    return prepare(Artifacts(folder / "root"), dataset, progress=lambda line: None)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return prepared_at(tmp_path_factory.mktemp("splits") / "shop")


def ends(sessions: Sessions) -> set[str]:
    return {str(datetime.fromtimestamp(end / 1e6, UTC).date()) for end in sessions.end.tolist()}


def day(number: int) -> str:
    return f"2026-01-{number:02}"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [((1, 5), (6, 6))]),
        ({"test_days": 2}, [((1, 4), (5, 6))]),
        ({"folds": 3}, [((1, 3), (4, 4)), ((1, 4), (5, 5)), ((1, 5), (6, 6))]),
        ({"folds": 2, "test_days": 2, "train_days": 2}, [((1, 2), (3, 4)), ((3, 4), (5, 6))]),
        ({"folds": 2, "train_days": 3, "until": date(2026, 1, 5)}, [((1, 3), (4, 4)), ((2, 4), (5, 5))]),
        ({"train_days": 99}, [((1, 5), (6, 6))]),
    ],
)
def test_folds_of_days(
    shop: Manifest, config: dict[str, object], expected: list[tuple[tuple[int, int], tuple[int, int]]]
) -> None:
    made = folds(shop, SplitConfig.model_validate(config))
    assert [(fold.about()["train"], fold.about()["test"]) for fold in made] == [
        ([day(train[0]), day(train[1])], [day(test[0]), day(test[1])]) for train, test in expected
    ]
    for fold, (train_days, test_days) in zip(made, expected, strict=True):
        split = fold.read()
        assert ends(split.train) == {day(number) for number in range(train_days[0], train_days[1] + 1)}
        assert ends(split.test.history) == {day(number) for number in range(test_days[0], test_days[1] + 1)}
        assert ends(split.last_day) == {day(train_days[1])}
        assert (split.train.end.diff() >= 0).all()
        assert fold.test_day == day(test_days[0])
        [again] = folds(shop, fold.config)
        assert (again.train_days, again.test_days) == (fold.train_days, fold.test_days), "a fold's split has it alone"


def test_the_default_is_the_test_day_and_what_was_before(shop: Manifest) -> None:
    schema = FeatureSchema.read(shop.folder / "schema.json")
    split = split_sessions(shop, schema, 100)
    assert (len(split.train), len(split.test.target)) == (30, 6)
    assert folds(shop)[-1].config == SplitConfig(), "so that a model of the newest fold is that of the night"


def test_cold_users_and_items_are_counted(shop: Manifest) -> None:
    first, last = folds(shop, SplitConfig(folds=3, train_days=2))[::2]
    assert first.counts() == {
        "train_sessions": 12, "test_sessions": 6, "test_users": 6, "cold_users": 1, "test_items": 6, "cold_items": 1,
    }  # fmt: skip
    assert last.counts() == first.counts(), "the item of the newest day has an id of its own that no training event has"
    assert (first.name, folds(shop, SplitConfig(test_days=2))[0].name) == (day(4), f"{day(5)}..{day(6)}")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"folds": 6}, "6 folds of 1 day and a day to train on before them need 7 days .* there are 6"),
        ({"test_days": 6}, "1 fold of 6 days .* need 7"),
        ({"until": date(2026, 1, 1)}, "need 2 days with sessions up to 2026-01-01; there are 1"),
        ({"until": date(2026, 3, 1)}, "until 2026-03-01: there are no sessions of that day"),
        ({"rule": "leave_one_out", "folds": 2}, "evaluation.split.folds 2: leave_one_out has one fold"),
        ({"rule": "list", "path": "x.parquet", "folds": 2}, "evaluation.split.folds 2: a list is one test"),
    ],
)
def test_folds_that_days_do_not_suffice_for_are_refused(shop: Manifest, config: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        folds(shop, SplitConfig.model_validate(config))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"rule": "list"}, "needs path"),
        ({"path": "x.parquet"}, "read with rule: list alone"),
        ({"rule": "folds"}, "'day', 'leave_one_out' or 'list'"),
        ({"folds": 0}, "greater than 0"),
        ({"fold": 2}, "fold"),
    ],
)
def test_a_split_that_is_written_wrongly_is_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse(SplitConfig, config, "evaluation.split")


def test_leave_one_out_of_sessions_with_days(shop: Manifest) -> None:
    [fold] = folds(shop, SplitConfig(rule="leave_one_out"))
    split = fold.read(3)
    assert (len(split.train), len(split.validation.target), len(split.test.target)) == (36, 3, 36)
    assert int(split.train.lengths.max()) == 1 and int(split.test.history.lengths.max()) == 2
    assert (fold.name, fold.test_day, fold.about()["test"]) == ("leave_one_out", None, None)


def test_histories_have_one_fold_and_no_days(tmp_path: Path) -> None:
    histories = prepared_at(tmp_path / "shop", "leave_one_out")
    [fold] = folds(histories)
    assert len(fold.read(4).test.target) == 11
    assert fold.counts()["train_sessions"] == 11 and fold.counts()["cold_users"] is None
    for config, words in (
        (SplitConfig(rule="day"), "histories without days"),
        (SplitConfig(folds=2), "folds 2: histories have no days"),
        (SplitConfig(test_days=2), "test_days 2"),
        (SplitConfig(until=date(2026, 1, 2)), "until 2026-01-02"),
    ):
        with pytest.raises(InputError, match=words):
            folds(histories, config)


def list_at(path: Path, rows: list[tuple[str, list[str], str]], drop: tuple[str, ...] = ()) -> SplitConfig:
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "target"], orient="row")
    frame.drop(drop).write_parquet(path)
    return SplitConfig(rule="list", path=str(path))


def test_a_list_of_histories_and_targets_is_the_test(
    shop: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("u1", ["i1", "i2"], "i3"), ("x", ["i5", "nothing"], "i1"), ("y", [], "i2"), ("z", ["of1"], "never seen")]
    config = list_at(tmp_path / "list.parquet", rows)
    whole = read_split(shop, config, 10)
    monkeypatch.setattr("modeling.stages.listed.ROWS", 3)
    split = read_split(shop, config, 10)
    items = pl.read_parquet(shop.folder / "items.parquet")
    ids = dict(items.select("value", "id").iter_rows())
    assert split.test.target.tolist() == [ids["i3"], ids["i1"], ids["i2"], 2]
    assert split.test.history.lengths.tolist() == [2, 2, 0, 1]
    _, event = split.test.history.event_index()
    assert split.test.history.items[event].tolist() == [ids["i1"], ids["i2"], ids["i5"], 2, ids["of1"]]
    assert torch.equal(split.test.history.starts, whole.test.history.starts), "however many rows are read at a time"
    assert split.users is not None and split.users.to_list() == ["u1", "x", "y", "z"]
    assert ends(split.train) == {day(number) for number in range(1, 6)}, "trains as the night does"
    nobody = read_split(shop, list_at(tmp_path / "nobody.parquet", rows, ("user_id",)), 10)
    assert nobody.users is not None and nobody.users.to_list() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="row 5: target holds a null"):
        read_split(shop, list_at(tmp_path / "null.parquet", [*rows, ("u", ["i1"], None)]), 10)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("rows", "drop", "words"),
    [
        ([("u", ["i1"], "i2")], ("target",), "column target has an item id a row, but there is none"),
        ([("u", ["i1"], "i2")], ("item_id",), "column item_id has lists"),
        ([], (), "no row"),
        ([("u", ["i1"], "i2"), ("u", ["i1"], None)], (), "row 2: target holds a null"),
        ([("u", ["i1", None], "i2")], (), "row 1: item_id holds a null"),
        ([("u", ["i1"], ["i2"])], (), "target has an item id a row, but it holds"),
    ],
)
def test_lists_that_cannot_be_read_are_refused(
    shop: Manifest, tmp_path: Path, rows: list[tuple[str, list[str], str]], drop: tuple[str, ...], words: str
) -> None:
    path = tmp_path / "list.parquet"
    if rows:
        config = list_at(path, rows, drop)
    else:
        kinds = {"item_id": pl.List(pl.String), "target": pl.String}
        pl.DataFrame(schema=kinds).write_parquet(path)
        config = SplitConfig(rule="list", path=str(path))
    with pytest.raises(InputError, match=words):
        read_split(shop, config, 10)


def test_an_empty_list_is_refused_before_anything_is_trained(shop: Manifest, tmp_path: Path) -> None:
    pl.DataFrame(schema={"item_id": pl.List(pl.String), "target": pl.String}).write_parquet(tmp_path / "list.parquet")
    split = SplitConfig(rule="list", path=str(tmp_path / "list.parquet"))
    artifacts = Artifacts(tmp_path / "root")
    with pytest.raises(InputError, match="no row"):
        train(artifacts, shop, TINY, TRAINING, lambda line: None, split)
    assert not (tmp_path / "root" / "models").exists()


def test_a_fold_names_model_and_evaluation_and_stands_in_both(shop: Manifest) -> None:
    artifacts = Artifacts(shop.root)
    made = []
    for fold in folds(shop, SplitConfig(folds=2)):
        model = train(artifacts, shop, TINY, TRAINING, lambda line: None, fold.config)
        evaluation = evaluate(
            artifacts, model, shop, EvaluationConfig(baselines=("popularity",), split=fold.config), lambda line: None
        )
        assert model.facts["test_day"] == fold.test_day and model.facts["split"] == fold.about()
        assert evaluation.facts["split"] == fold.about() | fold.counts()
        assert evaluation.facts["learned_from_test_day"] is False
        made.append((model.name, evaluation.name))
    assert len({name for pair in made for name in pair}) == 4
    night = train(artifacts, shop, TINY, TRAINING, lambda line: None)
    assert night.name == made[-1][0] and night.reused, "the newest fold is the night's"
    early = EvaluationConfig(baselines=(), split=SplitConfig(until=date(2026, 1, 5)))
    assert evaluate(artifacts, night, shop, early, lambda line: None).facts["learned_from_test_day"] is True


def test_a_list_names_the_evaluation_by_what_it_holds(shop: Manifest, tmp_path: Path) -> None:
    artifacts, said = Artifacts(shop.root), list[str]()
    model = train(artifacts, shop, TINY, TRAINING, said.append)
    names = []
    for number, target in enumerate(["i3", "i4", "i3"]):
        config = list_at(tmp_path / f"{number}.parquet", [("u1", ["i1", "i2"], target), ("u1", ["i1"], "of9")])
        evaluation = evaluate(artifacts, model, shop, EvaluationConfig(baselines=(), split=config), said.append)
        assert (evaluation.facts["cases"], evaluation.facts["unknown_targets"]) == (1, 1)
        assert evaluation.facts["split"]["rule"] == "list" and evaluation.facts["split"]["test"] is None
        names.append(evaluation.name)
    assert names[0] == names[2] != names[1]


@pytest.mark.parametrize(
    ("drop", "users", "returning"),
    [((), ["u1", "new6", "u2"], [True, False, True]), (("user_id",), [0, 1, 3], [None, None, None])],
)
def test_ranks_of_a_list_say_whose_they_are(
    shop: Manifest, tmp_path: Path, drop: tuple[str, ...], users: list[object], returning: list[bool | None]
) -> None:
    """A row without a history, which has no rank, begins where the next one does."""
    rows = [("u1", ["i1"], "i3"), ("new6", ["i2"], "i1"), ("u3", [], "i2"), ("u2", ["i4"], "i5")]
    config = EvaluationConfig(baselines=(), split=list_at(tmp_path / "list.parquet", rows, drop))
    artifacts = Artifacts(shop.root)
    model = train(artifacts, shop, TINY, TRAINING, lambda line: None)
    evaluation = evaluate(artifacts, model, shop, config, lambda line: None)
    ranks = pl.read_parquet(evaluation.folder / "ranks.parquet").sort("case")
    assert ranks["case"].to_list() == [0, 1, 3] and evaluation.facts["too_short"] == 1
    assert ranks["user"].to_list() == users and ranks["returning"].to_list() == returning
    assert ranks["target_age_days"].null_count() == 3


def test_labels_are_not_measured_on_a_list_and_that_is_said(tmp_path: Path) -> None:
    sessions = prepared_at(tmp_path / "shop", more="labels: [step]\n")
    heads = {"next_item": {}, "step": "regression"}
    config = ModelConfig.model_validate(TINY.model_dump(exclude_unset=True) | {"heads": heads})
    artifacts, lines = Artifacts(sessions.root), list[str]()
    model = train(artifacts, sessions, config, TRAINING, lambda line: None)
    split = list_at(tmp_path / "list.parquet", [("u1", ["i1"], "i3")])
    evaluation = evaluate(artifacts, model, sessions, EvaluationConfig(baselines=(), split=split), lines.append)
    assert evaluation.facts["cases"] == 1 and evaluation.facts["labels"] == {}
    assert "Not measured on a list, which holds no labels: step." in lines


def test_users_of_a_list_may_be_written_as_another_type(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [7, 8]}).write_parquet(tmp_path / "day.parquet")
    users = pl.Series("user_id", ["7", "9", "anonymous"])
    assert _returning(users, [tmp_path / "day.parquet"]).to_list() == [True, False, None]


def test_what_the_page_on_splits_shows(shop: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "splits.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {"sessions": shop})
    assert f"{day(5)} 18 sessions train, 6 test; 1 cold users" in capsys.readouterr().out
    rows = re.findall(r"^\| `(\{.*?\})` \|", page, re.MULTILINE)
    assert [SplitConfig.model_validate(yaml.safe_load(row)) for row in rows] and len(rows) == 6
    settings = set(SplitConfig.model_fields)
    assert settings <= set(re.findall(r"\w+", " ".join(rows))), "every setting is shown"
