"""The shape of prepared sessions, and what a training says and records of what it chose by it."""

from pathlib import Path

import polars as pl

from modeling.config import ModelConfig, TrainingConfig
from modeling.presets.by_shape import Shape
from modeling.stages import train
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts
from schemas.dataset import Dataset


def _prepared(root: Path, items_of_day: dict[int, list[str]]) -> Shape:
    rows = [
        (f"u{day}-{user}", items[(user + place) % len(items)], f"2026-03-{day:02} 10:{place:02}:00")
        for day, items in items_of_day.items()
        for user in range(120)
        for place in range(3)
    ]
    root.mkdir()
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(root / "events.csv")
    columns = {name: name for name in ("user_id", "item_id", "timestamp")}
    about = {"name": "paper", "events": {"path": "events.csv", "columns": columns}}
    say = lambda line: None  # noqa: E731
    return Shape.of(prepare(Artifacts(root / "root"), Dataset.model_validate(about).at(root), progress=say))


def test_what_moves_is_seen_in_the_drift_of_items_on_the_newest_day(tmp_path: Path) -> None:
    stays = [f"i{item}" for item in range(12)]
    shape = _prepared(tmp_path / "stays", dict.fromkeys(range(1, 6), stays))
    assert shape.drift < 0.1 and not shape.moves and shape.recent_share == 0.5  # of four training days
    shape = _prepared(tmp_path / "moves", {day: [f"i{day}-{item}" for item in range(12)] for day in range(1, 6)})
    assert shape.drift > 1 and shape.moves


def test_what_was_chosen_is_said_and_recorded_and_names_the_model_like_the_same_settings_written_out(
    tmp_path: Path,
) -> None:
    rows = [(f"u{user}", f"i{(user + place) % 9}", place) for user in range(60) for place in range(6)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row").write_csv(tmp_path / "events.csv")
    about = {
        "name": "ring",
        "events": {"path": "events.csv", "columns": {name: name for name in ("user_id", "item_id", "position")}},
        "sessions": {"rule": "history"},
        "split": "leave_one_out",
    }
    artifacts, lines = Artifacts(tmp_path / "root"), list[str]()
    sessions = prepare(artifacts, Dataset.model_validate(about).at(tmp_path), progress=lambda line: None)
    model = ModelConfig.model_validate({"body": {"dim": 8}})
    say = lambda line: lines.append(str(line))  # noqa: E731
    given = TrainingConfig(epochs=1, threads=1)
    by_rule = train(artifacts, sessions, model, given, say)
    assert by_rule.facts["by_shape"] == {
        "training.tokens_per_step": 64,
        "training.order": "random",
        "training.schedule": "linear",
        "training.patience": 10,
        "training.learning_rate": 0.003,
        "training.warmup_steps": 0.1,
        "loss": "full_softmax",
        "body.num_heads": 1,
        "body.attention_dropout": 0.2,
        "inputs.item_start": "neighbours",
    }
    assert (
        by_rule.parameters["training"] | {"tokens_per_step": 64, "learning_rate": 0.003}
        == by_rule.parameters["training"]
    )
    assert (
        len([line for line in lines if "Chosen by the shape of the data (histories, 360 events, 9 items)" in line]) == 1
    )
    written = TrainingConfig(
        epochs=1,
        threads=1,
        tokens_per_step=64,
        learning_rate=0.003,
        warmup_steps=0.1,
        order="random",
        schedule="linear",
        patience=10,
    )
    explicit = ModelConfig.model_validate(
        {
            "body": {"dim": 8, "num_heads": 1, "attention_dropout": 0.2},
            "loss": "full_softmax",
            "inputs": {"item_start": "neighbours"},
        }
    )
    assert train(artifacts, sessions, explicit, written, say).name == by_rule.name
    assert train(artifacts, sessions, model, given.model_copy(update={"tokens_per_step": 32}), say).name != by_rule.name


def test_features_of_a_shape_are_those_not_made_of_the_time(tmp_path: Path) -> None:
    rows = [
        (f"u{user}", f"i{place}", f"c{place % 2}", f"2026-03-0{1 + user % 3} 10:0{place}:00")
        for user in range(9)
        for place in range(6)
    ]
    names = ["user_id", "item_id", "shelf", "timestamp"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(tmp_path / "events.csv")
    about = {
        "name": "shelves",
        "events": {"path": "events.csv", "columns": {name: name for name in names}},
        "features": {
            "item_id": {"encode": "category"},
            "shelf": {"encode": "category"},
            "hour": {"column": "timestamp", "encode": "hour"},
        },
    }
    artifacts = Artifacts(tmp_path / "root")
    shape = Shape.of(prepare(artifacts, Dataset.model_validate(about).at(tmp_path), progress=lambda line: None))
    assert shape.features == ("shelf",)


def test_histories_are_known_by_their_split(tmp_path: Path) -> None:
    rows = [
        (f"u{user}", f"i{(user + place) % 9}", f"2026-03-0{1 + user % 3} 10:0{place}:00")
        for user in range(60)
        for place in range(6)
    ]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "events.csv")
    columns = {name: name for name in ("user_id", "item_id", "timestamp")}
    history = {"sessions": {"rule": "history"}, "split": "leave_one_out"}
    for more, histories in (({}, False), ({"sessions": {"rule": "gap"}}, False), (history, True)):
        about = {"name": "ring", "events": {"path": "events.csv", "columns": columns}} | more
        artifacts = Artifacts(tmp_path / f"root{len(more)}")
        shape = Shape.of(prepare(artifacts, Dataset.model_validate(about).at(tmp_path), progress=lambda line: None))
        assert shape.histories == histories
        assert shape.num_items == 9 and shape.num_events >= shape.num_sessions > 0
