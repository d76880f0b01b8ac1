"""Lists written in bulk: the list of a history in the file is the one that `recommend` gives for it, in every kind of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from torch import Tensor

from flows.recommend import recommend_all
from modeling.config import ModelConfig, TrainingConfig
from modeling.service import bulk
from modeling.service.popularity import readable
from modeling.service.recommender import Recommender
from modeling.sessions import Sessions, read_sessions
from modeling.stages import train
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import read_dataset
from schemas.errors import InputError

K = 5


def quiet(line: object) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest, Path]:
    """Sessions and a model of a small shop, and the shop."""
    folder = tmp_path_factory.mktemp("bulk")
    simulate(Shop(days=4, users=60, seed=2), folder / "shop")
    artifacts = Artifacts(folder / "root")
    sessions = prepare(artifacts, read_dataset("demo").at(folder / "shop"), progress=quiet)
    config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}})
    model = train(artifacts, sessions, config, TrainingConfig(epochs=1, tokens_per_step=256, threads=1), quiet)
    return sessions, model, folder / "shop"


def raw_histories(recommender: Recommender, count: int = 40) -> pl.DataFrame:
    values = recommender.items["value"].to_list()
    lists = [[values[(7 * row + place * place) % len(values)] for place in range(1 + row % 6)] for row in range(count)]
    return pl.DataFrame({"user_id": [f"u{row}" for row in range(count)], "item_id": lists})


def written(out: Path, key: str = "user_id") -> dict[Any, list[Any]]:
    table = pl.read_parquet(out / "lists.parquet")
    assert (
        table.sort(key, "rank")["rank"].to_list()
        == table.sort(key, "rank").select(pl.int_range(1, pl.len() + 1).over(key).alias("rank"))["rank"].to_list()
    )
    assert table.group_by(key).agg(pl.col("score").diff().max() <= 0)["score"].fill_null(True).all()
    return {name[0]: rows["item"].to_list() for name, rows in table.group_by([key], maintain_order=True)}


@pytest.mark.parametrize("keep_seen", [False, True])
@pytest.mark.parametrize(
    "kind", ["lists.parquet", "events.parquet", "events.csv", "events.tsv", "events.jsonl", "folder"]
)
def test_every_file(
    night: tuple[Manifest, Manifest, Path], tmp_path: Path, kind: str, keep_seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "HISTORIES", 7)
    monkeypatch.setattr(bulk, "EVENTS", 20)
    recommender = Recommender(night[1].folder)
    histories = raw_histories(recommender)
    rows = histories.explode("item_id")
    rows = rows.with_columns(pl.int_range(pl.len()).over("user_id").alias("timestamp") + 1_772_000_000)
    rows = rows.sort("timestamp", maintain_order=True)  # the events of users lie between each other's
    file = tmp_path / kind
    if kind == "lists.parquet":
        histories.write_parquet(file, row_group_size=9)
    elif kind == "folder":
        file.mkdir()
        for number, part in enumerate((histories[:11], histories[11:])):
            part.write_parquet(file / f"{number}.parquet")
    elif kind == "events.parquet":
        rows.write_parquet(file)
    elif kind == "events.jsonl":
        rows.write_ndjson(file)
    else:
        rows.write_csv(file, separator="," if kind.endswith("csv") else "\t")
    summary = recommend_all(night[1].folder, file, tmp_path / "out", K, keep_seen=keep_seen, say=quiet)
    lists = written(tmp_path / "out")
    assert summary["histories"] == len(lists) == len(histories) and summary["rows"] == K * len(histories)
    for user, items in histories.iter_rows():
        if kind in ("lists.parquet", "folder"):
            alone = recommender.recommend(recommender.histories([items])[0], K, filter_seen=not keep_seen)
        else:
            alone = recommender.recommend(
                recommender.histories(rows.filter(user_id=user))[0], K, filter_seen=not keep_seen
            )
        assert lists[user] == alone[0], user


def test_prepared_sessions(
    night: tuple[Manifest, Manifest, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in batches as they are in files; what is held at a time does not grow with their number."""
    sessions, model, _ = night
    monkeypatch.setattr(bulk, "HISTORIES", 8)
    sizes, ranked = [], Recommender.ranked

    def counted(self: Recommender, histories: Sessions, *args: Any, **how: Any) -> tuple[Tensor, Tensor]:
        sizes.append((len(histories), len(histories.items)))
        return ranked(self, histories, *args, **how)

    monkeypatch.setattr(Recommender, "ranked", counted)
    said: list[str] = []
    monkeypatch.setattr("flows.recommend.STEP", 50)
    folder = sessions.folder / "sessions"
    summary = recommend_all(model.folder, folder, tmp_path / "out", K, say=said.append)
    table = pl.read_parquet(f"{folder}/**/*.parquet")
    assert summary["histories"] == table.height > 100
    assert len(sizes) >= table.height // 8 and max(number for number, _ in sizes) <= 8
    assert max(events for _, events in sizes) <= 8 * table["length"].max(), "of other batches' events none is held"
    assert any(f"of {table.height:,} histories" in line for line in said)
    lists = written(tmp_path / "out", "session_id")
    recommender = Recommender(model.folder)
    whole = read_sessions(folder, recommender.schema)
    known = readable(recommender.model, whole)
    assert summary["popular"] == int((~known).sum())
    whole = whole.select(known.nonzero().squeeze(1))
    alone = {
        (int(end), tuple(lists))
        for end, lists in zip(whole.end, recommender.recommend(whole, K, filter_seen=True), strict=True)
    }
    ends = dict(table.select("session_id", pl.col("end").dt.epoch("us")).iter_rows())
    found = {(ends[session], tuple(items)) for session, items in lists.items()}
    assert alone <= found and len(found - alone) <= summary["popular"]


@pytest.mark.parametrize("broken", ["type", "empty file", "no key", "other dataset", "there already"])
def test_a_file_of_lists_is_complete_or_absent(
    night: tuple[Manifest, Manifest, Path], tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "HISTORIES", 4)
    recommender = Recommender(night[1].folder)
    table, file, out = raw_histories(recommender, 12), tmp_path / "in" / "h.parquet", tmp_path / "out"
    file.parent.mkdir()
    if broken == "type":  # in the last batch, when lists were written already
        null = pl.lit([None], dtype=pl.List(pl.String))
        table = table.with_columns(
            pl.when(pl.int_range(pl.len()) == 11).then(null).otherwise("item_id").alias("item_id")
        )
    elif broken == "empty file":
        table = table.clear()
    elif broken == "no key":
        table = table.drop("user_id")
    elif broken == "there already":
        out.mkdir()
        (out / "kept").touch()
    elif broken == "other dataset":
        file = next((night[0].folder / "sessions").glob("*/*.parquet"))
        monkeypatch.setattr(
            recommender.schema.__class__, "read", classmethod(_renamed(recommender.schema.__class__.read))
        )
    if broken != "other dataset":
        table.write_parquet(file)
    with pytest.raises(InputError):
        recommend_all(night[1].folder, file, out, K, say=quiet)
    left = {path.name for path in tmp_path.iterdir()} - {"in"}
    assert left == ({"out"} if broken == "there already" else set())


def _renamed(read: Callable[[Path], Any]) -> Callable[[type, Path], Any]:
    return lambda cls, path: read(path).model_copy(update={"dataset": "another"})


def test_a_history_without_events_gets_no_list_and_is_counted(
    night: tuple[Manifest, Manifest, Path], tmp_path: Path
) -> None:
    recommender = Recommender(night[1].folder)
    value = recommender.items["value"][0]
    pl.DataFrame({"session_id": [1, 2, 3], "item_id": [[value], [], None]}).write_parquet(tmp_path / "h.parquet")
    summary = recommend_all(night[1].folder, tmp_path / "h.parquet", tmp_path / "out", K, say=quiet)
    assert (summary["histories"], summary["empty"], summary["rows"]) == (3, 2, K)
    assert list(written(tmp_path / "out", "session_id")) == [1]


def test_lists_in_json_lines(night: tuple[Manifest, Manifest, Path], tmp_path: Path) -> None:
    recommender = Recommender(night[1].folder)
    histories = raw_histories(recommender, 9)
    histories.write_ndjson(tmp_path / "h.jsonl")
    assert recommend_all(night[1].folder, tmp_path / "h.jsonl", tmp_path / "out", K, say=quiet)["histories"] == 9
    alone = recommender.recommend(recommender.histories(histories["item_id"].to_list())[0], K, filter_seen=True)
    assert list(written(tmp_path / "out").values()) == alone


def test_the_folder_of_a_prepared_dataset_is_its_sessions(
    night: tuple[Manifest, Manifest, Path], tmp_path: Path
) -> None:
    for number, folder in enumerate((night[0].folder, night[0].folder / "sessions")):
        recommend_all(night[1].folder, folder, tmp_path / str(number), K, say=quiet)
    assert written(tmp_path / "0", "session_id") == written(tmp_path / "1", "session_id")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"user_id": [1], "item_id": [["a"]]}, "first by user_id .*string.*, then by user_id .int64."),
        ({"session_id": ["s"], "item_id": [["a"]]}, "first by user_id .*, then by session_id"),
        ({"user_id": ["u"], "item_id": ["a"]}, "2.parquet: item_id is no list"),
        ({"user_id": ["u"], "items": [["a"]]}, "2.parquet: there is no column item_id among user_id, items"),
    ],
)
def test_files_of_a_folder_that_differ_are_refused(
    night: tuple[Manifest, Manifest, Path], tmp_path: Path, second: dict[str, list[Any]], message: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    raw_histories(Recommender(night[1].folder), 3).write_parquet(folder / "1.parquet")
    pl.DataFrame(second).write_parquet(folder / "2.parquet")
    with pytest.raises(InputError, match=message):
        recommend_all(night[1].folder, folder, tmp_path / "out", K, say=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("kind", ["below a file", "broken link"])
def test_an_out_that_cannot_be_made_is_named(night: tuple[Manifest, Manifest, Path], tmp_path: Path, kind: str) -> None:
    file, out = tmp_path / "h.parquet", tmp_path / "h.parquet" / "out"
    raw_histories(Recommender(night[1].folder), 3).write_parquet(file)
    if kind == "broken link":
        out = tmp_path / "link"
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"^--out {out}"):
        recommend_all(night[1].folder, file, out, K, say=quiet)


def test_a_file_without_a_line_holds_no_history(night: tuple[Manifest, Manifest, Path], tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").touch()
    with pytest.raises(InputError, match="no history"):
        recommend_all(night[1].folder, tmp_path / "h.jsonl", tmp_path / "out", K, say=quiet)


def test_events_without_an_item_a_time_or_a_user_are_left_out_and_counted(
    night: tuple[Manifest, Manifest, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "EVENTS", 10)
    rows = raw_histories(Recommender(night[1].folder), 9).explode("item_id")
    rows = rows.with_columns(timestamp=pl.int_range(pl.len()) + 1_772_000_000)
    bad = [rows[:1].with_columns(pl.lit(None, dtype=rows.schema[name]).alias(name)) for name in rows.columns]
    said: list[str] = []
    lists = {}
    for name, table in (("whole", rows), ("with bad rows", pl.concat([rows, *bad]))):
        table.write_parquet(tmp_path / f"{name}.parquet")
        recommend_all(night[1].folder, tmp_path / f"{name}.parquet", tmp_path / name, K, say=said.append)
        lists[name] = written(tmp_path / name)
    assert lists["whole"] == lists["with bad rows"]
    assert [line for line in said if "left out" in line] == [
        "3 events were left out: without an item, a time, or whose they are, or with a value that does not fit its column."
    ]


def test_files_of_raw_events_with_other_columns_are_named(
    night: tuple[Manifest, Manifest, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"items.parquet: column for 'user_id': Unknown column 'user_id'"):
        recommend_all(night[1].folder, night[2], tmp_path / "out", K, say=quiet)


def test_the_log_of_a_shop_as_it_is(night: tuple[Manifest, Manifest, Path], tmp_path: Path) -> None:
    summary = recommend_all(night[1].folder, night[2] / "events", tmp_path / "out", K, say=quiet)
    assert summary["histories"] == len(written(tmp_path / "out")) > 0
