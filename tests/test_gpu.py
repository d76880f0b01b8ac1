"""Plans are told apart: those the GPU engine takes whole, and those it would send to the CPU, with the reason.

Runs beside cudf-polars without torch: `python -m pytest --noconftest tests/test_gpu.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars import col

from preprocessing.frames import together
from tests.gpu import GPU, untranslatable

START = datetime(2026, 3, 1, tzinfo=UTC)
EVENTS = pl.LazyFrame(
    {
        "user_id": [1, 1, 2, 2, 2],
        "item_id": [7, 8, 7, 7, None],
        "event_type": ["view", "cart", "view", None, "view"],
        "agent": ["Firefox", "SomeBot/2", None, "Chrome", "Chrome"],
        "price": [1.0, None, 3.0, 0.5, 2.0],
        "timestamp": [START + timedelta(minutes=20 * i) for i in range(5)],
    }
)
ITEMS = pl.LazyFrame({"item_id": [7, 8], "brand": ["a", "b"]})


pytestmark = pytest.mark.gpu_plans


def test_a_night_in_one_plan_is_taken_whole() -> None:
    user_changed = col("user_id").ne_missing(col("user_id").shift(1))
    gap = col("timestamp") - col("timestamp").shift(1)
    hour = col("timestamp").dt.convert_time_zone("Europe/Berlin").dt.hour()
    angle = hour * (2 * 3.141592653589793 / 24)
    plan = (
        EVENTS.filter(
            col("event_type").is_in(["view", "cart"]), ~col("agent").str.to_lowercase().str.contains("bot|spider")
        )
        .sort("user_id", "timestamp", "item_id", descending=[False, False, True], nulls_last=True)
        .with_columns(session=(user_changed | (gap > timedelta(minutes=30))).fill_null(True).cast(pl.Int64).cum_sum())
        .filter(col("session").shift(-50).ne_missing(col("session")))
        .join(ITEMS, on="item_id", how="left", maintain_order="left")
        .join(ITEMS.filter(col("brand") == "b"), on="item_id", how="anti", maintain_order="left")
        .with_columns(
            kind=col("event_type").replace_strict({"view": 3, "cart": 4}, default=2, return_dtype=pl.Int32),
            price=pl.when(col("price") >= 0).then(col("price")).otherwise(0.0).log1p().clip(0, 10).cast(pl.Float32),
            bin=pl.lit(pl.Series([1.0, 2.0, 5.0])).search_sorted(col("price")),
            sine=angle.sin(),
            cosine=angle.cos(),
            day=col("timestamp").dt.date(),
            age=((col("timestamp") - col("timestamp").min()).dt.total_seconds() / 3600).floor(),
            known=pl.any_horizontal(col("brand").is_not_null(), col("price").is_not_null()),
            least=pl.min_horizontal("user_id", "item_id"),
            most=pl.max_horizontal("user_id", pl.coalesce("item_id", "user_id")),
        )
        .group_by("session")
        .agg(
            col("user_id").first(),
            pl.len().alias("length"),
            col("timestamp").min().alias("start"),
            col("item_id", "kind", "price", "bin", "sine", "cosine", "day", "age", "known", "least", "most"),
        )
        .sort("session")
    )
    assert untranslatable(plan) == []


REFUSED: dict[str, tuple[Callable[[], pl.LazyFrame], str]] = {
    "length of a list": (lambda: EVENTS.group_by("user_id").agg("item_id").select(col("item_id").list.len()), "Length"),
    "window over time": (lambda: EVENTS.select(col("price").rolling_sum_by("timestamp", "1h")), "RollingFunctionBy"),
    "Python function": (
        lambda: EVENTS.select(col("price").map_elements(hash, return_dtype=pl.Int64)),
        "anonymousfunction",
    ),
    "bins as categories": (lambda: EVENTS.select(col("price").cut([1, 2])), "Enum"),
    "first rows of a group": (lambda: EVENTS.group_by("user_id").agg(col("item_id").head(2)), "Slice"),
    "in one branch of a join only": (
        lambda: EVENTS.join(ITEMS.with_columns(number=col("brand").rle_id()), on="item_id", how="left"),
        "rle_id",
    ),
}


@pytest.mark.parametrize(("plan", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_would_run_on_the_cpu_is_refused_with_its_reason(plan: Callable[[], pl.LazyFrame], reason: str) -> None:
    assert reason in " ".join(untranslatable(plan()))


def test_every_reason_is_told() -> None:
    reasons = untranslatable(EVENTS.select(col("price").interpolate(), col("item_id").rle_id()))
    assert len(reasons) == 2


def test_what_the_optimiser_removes_is_no_reason() -> None:
    assert untranslatable(EVENTS.with_columns(number=col("item_id").rle_id()).select("user_id")) == []


def test_what_plans_that_go_together_share_is_made_once_and_each_keeps_a_side_of_its_own() -> None:
    pytest.importorskip("cudf_polars")
    from cudf_polars import Translator

    ordered = EVENTS.sort("user_id", "timestamp").filter(col("price") > 0)
    plans = [ordered, ordered.group_by("user_id").len("events"), ordered.select(col("price").sum())]
    whole = Translator(together(plans)._ldf.visit(), GPU).translate_ir()
    assert [list(side.schema) for side in whole.children] == [
        [f"0 {name}" for name in EVENTS.collect_schema()],
        ["1 user_id", "1 events"],
        ["2 price"],
    ]

    def sorts(node: Any, made: set[int]) -> int:
        """How often the rows are put in order, where what is in the cache is made once."""
        if type(node).__name__ == "Cache":
            if node.key in made:
                return 0
            made.add(node.key)
        return (type(node).__name__ == "Sort") + sum(sorts(child, made) for child in node.children)

    assert sorts(whole, set()) == 1
