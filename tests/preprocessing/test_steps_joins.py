"""Joins keep rows; what changes over time is told as it was, never as it became."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.plan import build_steps
from preprocessing.steps import Step
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of
from tests.slow import examples

TIME = pl.Datetime("us", "UTC")


def step_with(source: Path, entry: Any, **parts: Any) -> Step:
    ((_, step),) = build_steps(dataset_of(source, steps=[entry], **parts))
    return step


def test_join_items_keeps_rows_and_order(tmp_path: Path) -> None:
    # Narrower ids than those of the events, and a row without one.
    items = pl.DataFrame({"item_id": pl.Series([2, 1, None], dtype=pl.Int16), "kind": ["shoe", "hat", "none"]})
    items.write_parquet(tmp_path / "items.parquet")
    table = {"columns": {"item_id": "item_id", "category": "kind"}}
    step = step_with(tmp_path, {"join_items": {"columns": ["category"]}}, items=table)
    joined = step.apply(pl.LazyFrame({"item_id": [1, 3, 2, 1]})).collect()
    assert joined["category"].to_list() == ["hat", None, "shoe", "hat"]
    as_text = step.apply(pl.LazyFrame({"item_id": ["1", "01", "2"]})).collect()
    assert as_text["category"].to_list() == ["hat", None, "shoe"]  # the same id in another type, and another id
    with pytest.raises(InputError, match="step join_items: the events have a column 'category' already"):
        step.apply(pl.LazyFrame({"item_id": [1], "category": [1]}))


def test_join_users_keeps_rows_and_order(tmp_path: Path) -> None:
    pl.DataFrame({"user": ["b", "a"], "country": ["DE", "FR"]}).write_parquet(tmp_path / "users.parquet")
    table = {"columns": {"user_id": "user", "country": "country"}}
    step = step_with(tmp_path, {"join_users": {"columns": ["country"]}}, users=table)
    joined = step.apply(pl.LazyFrame({"user_id": ["a", "c", "b", "a"]})).collect()
    assert joined["country"].to_list() == ["FR", None, "DE", "FR"]
    with pytest.raises(
        InputError, match=r"user_id is Int64 in the events and String .*, such as 'b', .*types: {user_id: text}"
    ):
        step.apply(pl.LazyFrame({"user_id": [1]}))


def latest(source: Path, changes: pl.DataFrame) -> Step:
    changes.write_parquet(source / "items.parquet")
    table = {"columns": {"item_id": "item", "valid_from": "since", "price": "price"}}
    return step_with(source, {"join_latest": {"columns": ["price"]}}, items=table)


def test_join_latest_tells_what_was_true_then(tmp_path: Path) -> None:
    changes = pl.DataFrame(
        {"item": ["x", "x", "y", "y"], "since": [at(2), at(1), at(2), None], "price": [2.0, 1.0, 4.0, 3.0]}
    )
    events = pl.LazyFrame(
        [("x", at(0), 0), ("x", at(1), 1), ("x", at(3), 2), ("y", at(0), 3), ("y", at(2), 4), ("z", at(9), 5)],
        schema=["item_id", "timestamp", "place"],
        orient="row",
    )
    joined = latest(tmp_path, changes).apply(events).sort("place").collect()
    assert joined.columns == ["item_id", "timestamp", "place", "price"]
    assert joined["price"].to_list() == [None, 1.0, 2.0, 3.0, 4.0, None]


moments = st.integers(0, 5).map(lambda minute: at(0, 0, minute))
changes_of_items = st.lists(st.tuples(st.integers(0, 2), moments), unique=True, min_size=1, max_size=12)
events_of_items = st.lists(st.tuples(st.integers(0, 3), moments), max_size=12)


@given(changes_of_items, events_of_items)
@examples(60)
def test_join_latest_is_an_asof_join(changes: list[Any], events: list[Any]) -> None:
    table = pl.DataFrame(changes, schema={"item": pl.Int64, "since": TIME}, orient="row").with_row_index("price")
    rows = pl.DataFrame(events, schema={"item_id": pl.Int64, "timestamp": TIME}, orient="row").with_row_index("place")
    with TemporaryDirectory() as folder:
        joined = latest(Path(folder), table).apply(rows.lazy()).sort("place").collect()
    expected = rows.sort("timestamp").join_asof(
        table.sort("since"),
        left_on="timestamp",
        right_on="since",
        by_left="item_id",
        by_right="item",
        check_sortedness=False,
    )
    assert joined["price"].to_list() == expected.sort("place")["price"].to_list()


def test_the_right_join_for_the_table(tmp_path: Path) -> None:
    pl.DataFrame({"item": ["x"], "since": [at(0)], "price": [1.0]}).write_parquet(tmp_path / "items.parquet")
    table = {"columns": {"item_id": "item", "valid_from": "since", "price": "price"}}
    with pytest.raises(InputError, match="take the step join_latest"):
        step_with(tmp_path, {"join_items": {"columns": ["price"]}}, items=table)
    with pytest.raises(InputError, match="no item table; add `items"):
        step_with(tmp_path, {"join_items": {"columns": ["price"]}})
    with pytest.raises(InputError, match="Known: price"):
        step_with(tmp_path, {"join_latest": {"columns": ["valid_from"]}}, items=table)
    undated = {"user_id": "u", "item_id": "i", "position": "p"}
    with pytest.raises(InputError, match="must map timestamp"):
        step_with(
            tmp_path, {"join_latest": {"columns": ["price"]}}, items=table, columns=undated,
            split="leave_one_out", sessions={"rule": "history"},
        )  # fmt: skip


def test_a_later_row_of_the_item_table_never_tells(tmp_path: Path) -> None:
    events = pl.LazyFrame({"item_id": ["x"], "timestamp": [at(1)]}, schema_overrides={"timestamp": TIME})
    late = pl.DataFrame({"item": ["x"], "since": [at(1) + timedelta(microseconds=1)], "price": [9.0]})
    assert latest(tmp_path, late).apply(events).collect()["price"].to_list() == [None]
