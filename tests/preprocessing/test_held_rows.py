"""Rows that stay on a GPU between plans: what stands for them in a plan, and what a translated plan then has in its place."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from preprocessing import frames
from preprocessing.frames import CPU, Held, collect, keep, on, together
from tests.gpu import GPU, translated

SCHEMA = pl.Schema({"user": pl.Int64(), "name": pl.String(), "tags": pl.List(pl.String())})
FRAME = pl.DataFrame({"user": [2, 1, 1], "name": ["a", None, "c"], "tags": [["x"], [], None]}, schema=SCHEMA)


def scans(node: Any) -> list[Any]:
    """The ends of a translated plan, each as often as something leads there."""
    return [end for child in node.children for end in scans(child)] if node.children else [node]


def test_on_a_cpu_rows_are_frames() -> None:
    assert on(CPU, FRAME) is FRAME
    assert keep(FRAME.lazy().filter(pl.col("user") == 1), CPU).lazy().collect().height == 2


def test_rows_that_the_host_holds_too_are_theirs_on_the_cpu() -> None:
    held = on(GPU, FRAME)
    assert isinstance(held, Held)
    assert (held.columns, held.height, held.schema) == (FRAME.columns, 3, SCHEMA)
    assert collect(held.lazy()).equals(FRAME) and held.to_host() is FRAME
    assert collect(held.lazy().sort("user").select("name"))["name"].to_list() == [None, "c", "a"]


def test_the_cpu_refuses_rows_that_only_a_gpu_holds() -> None:
    held, other = Held(SCHEMA, 3, GPU), on(GPU, FRAME)
    with pytest.raises(AssertionError, match="only a GPU holds"):
        collect(held.lazy().filter(pl.col("user") == 1).group_by("name").len())
    assert collect(other.lazy().select(pl.len())).item() == 3
    del held
    assert collect(FRAME.lazy()).equals(FRAME)


@pytest.mark.gpu_plans
@pytest.mark.parametrize("host", [None, FRAME])
def test_a_translated_plan_has_the_rows_in_the_place_of_what_stands_for_them(host: pl.DataFrame | None) -> None:
    held = Held(SCHEMA, 3, GPU, host=host)
    shared = held.lazy().with_columns(twice=pl.col("user") * 2).cache()
    table = pl.LazyFrame({"user": [1], "price": [0.5]})
    plans = [
        shared.group_by("name").agg(pl.len()),
        shared.join(table, on="user", how="left", maintain_order="left").select("twice", "price"),
        held.lazy().sort("user").select("tags"),
        held.lazy().select(pl.len()),
    ]
    whole = translated(together(plans))
    sides = frames.with_held(whole.children)
    ends = [end for side in sides for end in scans(side)]
    assert [end.held for end in ends if hasattr(end, "held")] == [held] * 4
    assert [type(end).__name__ for end in ends if not hasattr(end, "held")] == ["DataFrameScan"]  # the table's
    assert ends[-1].names == [] and sorted(ends[-2].names) == ["tags", "user"]
    assert not {name for end in ends for name in getattr(end, "names", ()) if name.startswith(frames.MARK)}


@pytest.mark.gpu_plans
def test_no_plan_takes_rows_on_a_gpu_for_ordered() -> None:
    """What stands for them is short, and a short column is in order."""
    plan = Held(SCHEMA, 3, GPU).lazy().sort("user", "name").with_columns(pl.col("user").shift(1).alias("last"))
    names = []

    def walk(node: Any) -> None:
        names.append(type(node).__name__)
        for child in node.children:
            walk(child)

    walk(translated(plan))
    assert "Sort" in names
