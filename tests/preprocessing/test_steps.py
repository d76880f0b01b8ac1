"""Steps: each does what its one line says; a typo is answered with the known names."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from preprocessing.steps import build_steps
from preprocessing.steps.drop_repeats import DropRepeats
from preprocessing.steps.filter_event_types import FilterEventTypes
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, run, three_days, write


def test_filter_event_types() -> None:
    events = pl.LazyFrame({"event_type": ["view", "cart", None, "view"]})
    assert FilterEventTypes(keep=("view",)).apply(events).collect().height == 2


def test_drop_repeats_within_sessions_only() -> None:
    events = pl.LazyFrame({"session_index": [1, 1, 1, 2, 2], "item_id": ["x", "x", "y", "y", "x"]})
    assert DropRepeats().apply(events).collect()["item_id"].to_list() == ["x", "y", "y", "x"]


def test_join_items_keeps_rows_and_order(tmp_path: Path) -> None:
    write(tmp_path, [])
    # Narrower ids than those of the events, and a row without one.
    items = pl.DataFrame({"item_id": pl.Series([2, 1, None], dtype=pl.Int16), "kind": ["shoe", "hat", "none"]})
    items.write_parquet(tmp_path / "items.parquet")
    dataset = dataset_of(
        tmp_path,
        items={"columns": {"item_id": "item_id", "category": "kind"}},
        steps=[{"join_items": {"columns": ["category"]}}],
    )
    ((name, step),) = build_steps(dataset)
    joined = step.apply(pl.LazyFrame({"item_id": [1, 3, 2, 1]})).collect()
    assert name == "join_items"
    assert joined["category"].to_list() == ["hat", None, "shoe", "hat"]
    with pytest.raises(InputError, match="id_type"):
        step.apply(pl.LazyFrame({"item_id": ["1"]}))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["drop_repeat"], "Did you mean 'drop_repeats'"),
        ([{"filter_event_types": {"kep": ["view"]}}], "Did you mean 'keep'"),
        ([{"filter_event_types": {"keep": []}}], "keep"),
        ([{"filter_event_types": {"keep": ["view"]}}], "map event_type"),
        ([{"join_items": {"columns": ["brnd"]}}], "Did you mean 'brand'"),
        ([{"join_items": {"columns": ["user_id"]}}], "Known: brand"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, steps: list[object], message: str) -> None:
    pl.DataFrame({"item_id": ["x"], "brand": ["acme"]}).write_parquet(tmp_path / "items.parquet")
    items = {"columns": {"item_id": "item_id", "brand": "brand"}}
    with pytest.raises(InputError) as error:
        build_steps(dataset_of(tmp_path, items=items, steps=steps))
    assert message in str(error.value)


def test_join_items_needs_a_table_and_a_free_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no item table"):
        build_steps(dataset_of(tmp_path, steps=[{"join_items": {"columns": ["brand"]}}]))
    pl.DataFrame({"item_id": ["x"], "price": [1]}).write_parquet(tmp_path / "items.parquet")
    items = {"columns": {"item_id": "item_id", "price": "price"}}
    with pytest.raises(InputError, match="already"):
        build_steps(
            dataset_of(tmp_path, columns=("price",), items=items, steps=[{"join_items": {"columns": ["price"]}}])
        )


def test_dropped_rows_are_counted_by_step(tmp_path: Path) -> None:
    rows = [(*row, "view") for row in three_days()]
    write(
        tmp_path,
        [*rows, rows[0], ("a", "x", at(1), "error"), ("a", "y", at(1, 12, 6), "view")],
        ("user_id", "item_id", "timestamp", "event_type"),
    )
    steps = [{"filter_event_types": {"keep": ["view"]}}, "drop_repeats"]
    manifest = run(tmp_path, dataset_of(tmp_path, columns=("event_type",), steps=steps))
    dropped = manifest.facts["dropped"]
    assert dropped["filter_event_types"] == 1
    assert dropped["duplicates"] == 1
    assert dropped["drop_repeats"] == 1
    assert manifest.facts["events"] == 15
