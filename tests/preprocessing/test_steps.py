"""Steps: each does what its one line says; a typo is answered with the known names."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import steps
from preprocessing.plan import build_steps
from preprocessing.steps import Step
from preprocessing.steps.drop_duplicates import DropDuplicates
from preprocessing.steps.drop_rare_items import DropRareItems
from preprocessing.steps.drop_repeats import DropRepeats
from preprocessing.steps.drop_short_users import DropShortUsers
from preprocessing.steps.filter_event_types import FilterEventTypes
from preprocessing.steps.k_core import KCore
from schemas import plugins
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, run, sessions_of, three_days, write


def built(*entries: Any, source: Path | str = "there", **parts: Any) -> Step:
    """The last of the steps."""
    return build_steps(dataset_of(source, steps=list(entries), **parts))[-1][1]


def sessions(items: str) -> pl.LazyFrame:
    """Events of sessions written as `xxy yx`, numbered by place."""
    words = items.split()
    rows = [(number, item) for number, word in enumerate(words, start=1) for item in word]
    return pl.LazyFrame(rows, schema=["session_index", "item_id"], orient="row").with_columns(
        place=pl.Series(range(len(rows)))
    )


def places(events: pl.LazyFrame) -> list[int]:
    return events.collect()["place"].to_list()


def test_filter_event_types() -> None:
    events = pl.LazyFrame({"event_type": ["view", "cart", None, "view"]})
    assert FilterEventTypes(keep=("view",)).apply(events).collect().height == 2


def test_drop_repeats_within_sessions_only() -> None:
    events = sessions("xxy yxx")
    assert places(DropRepeats().apply(events)) == [0, 2, 3, 4]
    assert places(DropRepeats(keep="last").apply(events)) == [1, 2, 3, 5]


def test_drop_duplicates_anywhere_in_a_session() -> None:
    events = sessions("xyxx yxy")
    assert places(DropDuplicates().apply(events)) == [0, 1, 4, 5]
    assert places(DropDuplicates(keep="last").apply(events)) == [1, 3, 5, 6]


def test_drop_crawlers_on_the_days_they_crawl() -> None:
    hours = [("bot", 21), ("bot", 22), ("bot", 23), ("bot", 24), ("bot", 25), ("ann", 22), ("ann", 23)]
    rows = [(user, at(0, hour), hour) for user, hour in hours]
    events = pl.LazyFrame(rows, schema=["user_id", "timestamp", "hour"], orient="row")
    step = {"drop_crawlers": {"max_events_per_day": 2}}
    assert built(step).apply(events).select("user_id", "hour").collect().rows() == [
        ("bot", 24),
        ("bot", 25),
        ("ann", 22),
        ("ann", 23),
    ]
    berlin = built(step, time_zone="Europe/Berlin").apply(events).collect()
    assert berlin["hour"].to_list() == [21, 22, 22, 23]
    assert berlin.columns == ["user_id", "timestamp", "hour"]


def test_rare_items_and_short_users() -> None:
    events = pl.LazyFrame({"user_id": list("aaabb"), "item_id": list("xyxxz")})
    assert DropRareItems(min_count=3).apply(events).collect()["item_id"].to_list() == ["x", "x", "x"]
    assert DropShortUsers(min_events=3).apply(events).collect()["user_id"].to_list() == ["a", "a", "a"]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=30), st.integers(1, 3), st.integers(1, 3))
@settings(deadline=None)
def test_the_core_is_what_is_left_when_nothing_changes(pairs: list[tuple[int, int]], items: int, users: int) -> None:
    events = pl.LazyFrame(pairs, schema={"user_id": pl.Int64, "item_id": pl.Int64}, orient="row")
    core = KCore(min_per_item=items, min_per_user=users).apply(events).collect().rows()
    left, before = pairs, None
    while left != before:
        before = left
        left = [pair for pair in left if sum(other[1] == pair[1] for other in left) >= items]
        left = [pair for pair in left if sum(other[0] == pair[0] for other in left) >= users]
    assert core == left


def test_label_sessions() -> None:
    kinds = ["view", "buy", "view", "view", None, "buy", "buy"]
    events = pl.LazyFrame({"session_index": [1, 1, 1, 2, 2, 3, 3], "event_type": kinds})
    options: dict[str, Any] = {"event_types": ["buy"], "name": "bought"}
    label = built({"label_sessions": options}, columns=("event_type",))
    assert label.apply(events).collect()["bought"].to_list() == [1, 1, 1, 0, 0, 1, 1]
    without = built({"label_sessions": {**options, "drop": True}}, columns=("event_type",)).apply(events).collect()
    assert without.rows() == [(1, "view", 1), (1, "view", 1), (2, "view", 0), (2, None, 0)]
    with pytest.raises(InputError, match="drops buy before"):
        built({"filter_event_types": {"keep": ["view"]}}, {"label_sessions": options}, columns=("event_type",))


def test_dwell_time() -> None:
    seconds = [0, 1.5, 1.5, 4, 9, 100]
    times = [at(0) + timedelta(seconds=second) for second in seconds]
    events = pl.LazyFrame({"session_index": [1, 1, 1, 1, 2, 3], "timestamp": times})
    added = built({"dwell_time": {"name": "seconds"}}).apply(events).collect()
    assert added["seconds"].to_list() == [1.5, 0.0, 2.5, None, None, None]
    assert added.drop("seconds").equals(events.collect())
    with pytest.raises(InputError, match="a column 'seconds' already"):
        built({"dwell_time": {"name": "seconds"}}).apply(added.lazy())
    places = {name: name for name in ("user_id", "item_id", "position")}
    with pytest.raises(InputError, match=r"step dwell_time: events\.columns must map timestamp"):
        built("dwell_time", columns=places, split="leave_one_out", sessions={"rule": "history"})


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("drop_repeat", "Did you mean 'drop_repeats'"),
        ({"drop_repeats": {"keep": "both"}}, "'first' or 'last'"),
        ({"filter_event_types": {"kep": ["view"]}}, "Did you mean 'keep'"),
        ({"filter_event_types": {"keep": []}}, "keep"),
        ({"filter_event_types": {"keep": ["view"]}}, "map event_type"),
        ({"label_sessions": {"event_types": ["view"]}}, "map event_type"),
        ({"join_items": {"columns": ["brnd"]}}, "Did you mean 'brand'"),
        ({"join_items": {"columns": ["item_id"]}}, "Known: brand"),
        ({"join_users": {"columns": ["country"]}}, "no user table"),
        ({"join_latest": {"columns": ["brand"]}}, "must map valid_from"),
        ({"rename": {"columns": {"item_id": "product"}}}, "item_id cannot be renamed"),
        ({"drop_columns": {"columns": ["timestamp"]}}, "timestamp cannot be dropped"),
        ({"derive": {"columns": {"twice": "2 *"}}}, "no SQL expression"),
        ({"derive": {"columns": {"share": "price / SUM(price)"}}}, "an aggregate"),
        ({"sample_users": {"share": 1.5}}, "less than 1"),
        ({"anonymise": {"columns": ["usr_id"]}}, "Did you mean 'user_id'"),
        ({"anonymise": {"columns": ["timestamp"]}}, "Known: item_id, user_id"),
        ({"anonymise": {"columns": ["item_id"]}}, "not found in 'items.parquet'"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, step: Any, message: str) -> None:
    pl.DataFrame({"item_id": ["x"], "brand": ["acme"]}).write_parquet(tmp_path / "items.parquet")
    items = {"columns": {"item_id": "item_id", "brand": "brand"}}
    with pytest.raises(InputError) as error:
        built(step, source=tmp_path, items=items)
    assert message in str(error.value)


def test_every_option_of_a_step_has_a_description() -> None:
    for name in plugins.names(steps):
        for option, field in plugins.find(steps, name).model_fields.items():
            assert field.description, f"{name}.{option}"


def test_every_step_is_tried_in_these_files() -> None:
    sources = "".join(file.read_text() for file in Path(__file__).parent.glob("test_steps*.py"))
    assert [
        name for name in plugins.names(steps) if f"steps.{name} import" not in sources and f'"{name}"' not in sources
    ] == []


def test_labels_are_written_with_sessions(tmp_path: Path) -> None:
    rows = [(*row, "view") for row in three_days()]
    bought = [("a", "y", at(day, 12, 6), "buy") for day in range(3)]
    write(tmp_path, [*rows, *bought], ("user_id", "item_id", "timestamp", "event_type"))
    entry = {"label_sessions": {"event_types": ["buy"], "name": "bought", "drop": True}}
    manifest = run(tmp_path, dataset_of(tmp_path, columns=("event_type",), steps=[entry], labels=["bought"]))
    assert manifest.facts["dropped"]["label_sessions"] == 3
    assert {*sessions_of(manifest).select("user_id", "bought").rows()} == {("a", 1), ("b", 0)}


def test_dropped_rows_are_counted_by_step(tmp_path: Path) -> None:
    rows = [(*row, "view") for row in three_days()]
    write(
        tmp_path,
        [*rows, rows[0], ("a", "x", at(1), "error"), ("a", "y", at(1, 12, 6), "view")],
        ("user_id", "item_id", "timestamp", "event_type"),
    )
    entries = [{"filter_event_types": {"keep": ["view"]}}, "drop_repeats"]
    manifest = run(tmp_path, dataset_of(tmp_path, columns=("event_type",), steps=entries))
    dropped = manifest.facts["dropped"]
    assert dropped["filter_event_types"] == 1
    assert dropped["duplicates"] == 1
    assert dropped["drop_repeats"] == 1
    assert manifest.facts["events"] == 15
