"""Beside the lists of a session: context known when it starts, and labels, of the session or of each event."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.engines import EngineName
from schemas.artifacts import Manifest
from schemas.errors import InputError
from schemas.features import FeatureSchema, LabelColumn
from tests.preprocessing.small import at, dataset_of, run, sessions_of, three_days, write

COLUMNS = ("user_id", "item_id", "timestamp", "price", "category", "tags", "stars", "good")
CONTEXT: dict[str, Any] = {
    "first_item": {"column": "item_id", "encode": "category"},
    "first_price": {"column": "price", "encode": ["log1p", "standardize"]},
    "first_category": {"column": "category", "encode": "category"},
    "first_tags": {"column": "tags", "encode": "category"},
    "first_hour": {"column": "timestamp", "encode": "hour"},
    "first_age": {"column": "timestamp", "encode": "event_age"},
    "first_elapsed": {"column": "timestamp", "encode": "elapsed"},
    "first_average": {"column": "category", "encode": "target_encoding", "target": "price"},
}
PER_SESSION = {name: feature | {"per": "session"} for name, feature in CONTEXT.items()}
PER_EVENT = {f"each_{name}": feature for name, feature in CONTEXT.items()}
Event = tuple[Any, ...]


def events() -> list[Event]:
    """A session of each of two users on three days; each of a day's five events has values of its own."""
    kinds = ["lamps", "chairs", "lamps", "desks", "chairs"]
    details = [(float(place + 1), kinds[place], [kinds[place], "sale"], place, place % 2 == 0) for place in range(5)]
    return [(*event, *details[place % 5]) for place, event in enumerate(three_days())]


def ending_otherwise(rows: list[Event]) -> list[Event]:
    """The same, but for the last event of each session of the third day."""
    last = at(2, 12, 5), at(2, 13, 2)
    other = 77.0, "desks", ["chairs"], 9, None
    return [(row[0], "x", row[2] + timedelta(hours=1), *other) if row[2] in last else row for row in rows]


def prepared(folder: Path, rows: list[Event], engine: EngineName = "cpu", **parts: Any) -> Manifest:
    folder.mkdir(exist_ok=True)
    write(folder, rows, COLUMNS)
    return run(folder, dataset_of(folder, columns=COLUMNS[3:], **parts), engine=engine)


@pytest.fixture(params=["cpu", "nvtabular"])
def engine(request: pytest.FixtureRequest) -> EngineName:
    if request.param == "nvtabular":
        pytest.importorskip("nvtabular", reason="NVTabular is not installed; make install does")
    name: EngineName = request.param
    return name


@pytest.mark.parametrize("rule", ["gap", "history"])
def test_context_does_not_know_the_last_event(rule: str, engine: EngineName, tmp_path: Path) -> None:
    """A model that is given it beside the events before the last learns nothing of the last."""
    parts: dict[str, Any] = {"features": PER_SESSION | PER_EVENT, "sessions": {"rule": rule, "gap_minutes": 90}}
    if rule == "history":
        parts["split"] = "leave_one_out"
    told, otherwise = (
        sessions_of(prepared(tmp_path / name, rows, engine, **parts)).filter(pl.col("end") >= at(2))
        for name, rows in (("told", events()), ("otherwise", ending_otherwise(events())))
    )
    assert told.height == otherwise.height == 2
    assert told.select(*CONTEXT).equals(otherwise.select(*CONTEXT))
    for name in PER_EVENT:
        assert not told[name].equals(otherwise[name]), name
        starts = [column[name].list.first().to_list() for column in (told, otherwise)]
        assert starts[0] == starts[1] == told[name.removeprefix("each_")].to_list()


def test_context_is_of_the_first_event_that_is_kept(tmp_path: Path) -> None:
    features = {"shown": {"column": "price", "encode": "fill", "value": 0, "per": "session"}}
    cut = prepared(tmp_path / "cut", events(), features=features, sessions={"max_length": 2})
    assert sessions_of(cut)["shown"].to_list() == [1.0, 4.0] * 3
    checks = [{"in_range": {"column": "price", "min": 2}}]
    checked = prepared(tmp_path / "checked", events(), features=features, checks=checks, sessions={"min_length": 1})
    assert sessions_of(checked)["shown"].to_list() == [2.0, 3.0] * 3


def test_labels(engine: EngineName, tmp_path: Path) -> None:
    rows = [(*row[:6], None if row[1] == "y" else row[6], row[7]) for row in events()]
    labels = ["price", {"column": "stars", "per": "event"}, {"column": "good", "per": "event"}]
    features = {"shown": {"column": "price", "encode": "log1p"}, "grade": {"column": "stars", "encode": "category"}}
    manifest = prepared(tmp_path, rows, engine, labels=labels, features=features)
    sessions = sessions_of(manifest)
    assert sessions["price"].to_list() == [2.0, 5.0] * 3
    assert sessions["stars"].to_list() == [[0, None], [None, 3, 4]] * 3
    assert sessions["good"].to_list() == [[True, False], [True, False, True]] * 3
    assert [sessions.schema[name] for name in ("price", "stars", "good")] == [
        pl.Float64,
        pl.List(pl.Int64),
        pl.List(pl.Boolean),
    ]
    assert FeatureSchema.read(manifest.folder / "schema.json").labels == (
        LabelColumn(name="price", per="session", source="price"),
        LabelColumn(name="stars", per="event", source="stars"),
        LabelColumn(name="good", per="event", source="good"),
    )


def test_labels_per_event_are_those_of_kept_events(tmp_path: Path) -> None:
    rows = [("a", "xyyz"[place], at(day, 12, place), place) for day in range(2) for place in range(4)]
    write(tmp_path, rows, ("user_id", "item_id", "timestamp", "place"))
    dataset = dataset_of(
        tmp_path,
        columns=("place",),
        steps=["drop_repeats", "dwell_time"],
        sessions={"max_length": 2},
        labels=[{"column": "place", "per": "event"}, {"column": "dwell", "per": "event"}],
    )
    sessions = sessions_of(run(tmp_path, dataset))
    assert sessions.select("place", "dwell").rows() == [([1, 3], [120.0, None])] * 2


def refused(folder: Path, label: Any, **parts: Any) -> str:
    with pytest.raises(InputError) as error:
        prepared(folder, events(), labels=[label], **parts)
    written = {path.parent.name for path in (folder / "artifacts").rglob("*") if path.is_file()}
    assert written <= {"inventories"}
    assert not list(folder.glob("artifacts/unfinished/*"))
    return str(error.value)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("category", "column 'category' holds String, but a label is a number or a boolean"),
        ("tags", "column 'tags' holds List(String)"),
        ("pric", "Did you mean 'price'?"),
    ],
)
@pytest.mark.parametrize("label", [str, lambda name: {"column": name, "per": "event"}])
def test_a_label_must_be_a_number_or_a_boolean(
    column: str, words: str, label: Callable[[str], Any], tmp_path: Path
) -> None:
    assert words in refused(tmp_path, label(column))
