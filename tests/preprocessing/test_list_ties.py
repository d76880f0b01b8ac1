"""Rows that differ in a column of lists alone: they are different events, and lie in one order however the source has them."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.execution.run import Workers
from schemas.artifacts import Manifest
from tests.preprocessing.small import at, content, dataset_of, run

TAGS: list[list[str] | None] = [["b", "a"], ["a"], None, ["a", "b"], []]
FEATURES = {"item_id": {"encode": "category"}, "tags": {"encode": "category"}}


def prepared(folder: Path, tags: list[Any], workers: Workers | None = None, **parts: Any) -> Manifest:
    """Two days of three users: of each an event a list, of one time and item, and one of another item."""
    folder.mkdir()
    rows = [(f"u{user}", "x", at(day, 12), value) for user in range(3) for day in (0, 1) for value in tags]
    rows += [(f"u{user}", "y", at(day, 13), ["c"]) for user in range(3) for day in (0, 1)]
    schema = {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Datetime("us", "UTC"),
        "tags": pl.List(pl.String),
    }
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / "events.parquet")
    dataset = dataset_of(folder, columns=("tags",), features=FEATURES, sessions={"min_length": 1}, **parts)
    return run(folder, dataset, **({"workers": workers} if workers else {}))


@pytest.mark.parametrize(
    "parts", [{}, {"steps": ["drop_repeats"]}, {"duplicates": ["item_id"]}, {"duplicates": "keep"}]
)
def test_the_order_of_the_source_makes_no_difference(parts: dict[str, Any], tmp_path: Path) -> None:
    first = content(prepared(tmp_path / "as-written", TAGS, **parts))
    for number, tags in enumerate([*permutations(TAGS)][17:120:34]):
        workers = Workers(min_buckets=1 + number)
        assert content(prepared(tmp_path / str(number), list(tags), workers, **parts)) == first


def test_rows_are_one_event_only_if_their_lists_are_the_same_too(tmp_path: Path) -> None:
    facts = prepared(tmp_path / "lists", [*TAGS, ["a"], ["a"]]).facts
    assert facts["events"] == 3 * 2 * (len(TAGS) + 1)
    assert facts["dropped"]["duplicates"] == 3 * 2 * 2
