"""Histograms that add up over days and parts, for quantiles without sorting: what `quantile` and `fill: median` learn.

Bins are fixed: zero, and for each sign 1,000 whose bounds are a factor of exp(1/24) apart, from 7e-7 to 8e11; the outermost
take all that lies beyond. A bin keeps its count and the smallest and largest number in it, so a quantile is off by at most
4.3 % of itself, and exact where its bin holds one number, as those of integers up to 20 do.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.encoders import Adds, Encoder, Expressions, Learns
from schemas.columns import COUNT, DAY, VALUE

PER_E, MIDDLE, BINS = 24, 341, 1_000  # 1.0 lies in the middle of bin 341: round numbers are on no bound
LOW, HIGH = "low", "high"


class Histogram(Encoder):
    """An encoder that learns how numbers are distributed."""

    learns: ClassVar[Learns] = "by value"
    adds_up: ClassVar[dict[str, Adds]] = {LOW: "min", HIGH: "max"}

    def key(self, value: pl.Expr) -> pl.Expr:
        """The bin. Null goes to that of zero, uncounted, so that every day has a row."""
        place = (value.abs().log() * PER_E + (MIDDLE + 0.5)).clip(1, BINS).cast(pl.Int32)
        return pl.when(value > 0).then(place).when(value < 0).then(-place).otherwise(pl.lit(0, dtype=pl.Int32))

    def statistics(self, value: pl.Expr) -> Expressions:
        """Count and bounds of what is in a bin."""
        return {COUNT: value.count().cast(pl.Int64), LOW: value.min(), HIGH: value.max()}

    def before(self, known: pl.DataFrame | None, learnt: pl.DataFrame) -> pl.DataFrame:
        """The histogram that each day in `learnt` may know, in order of day and bin, with `up_to`, the running count."""
        learnt = self._add_up(learnt, [DAY, VALUE])
        bins = learnt.select(VALUE) if known is None else pl.concat([known.select(VALUE), learnt.select(VALUE)])
        # Every bin on every day: a day without numbers in a bin still knows what was in it before.
        grid = learnt.select(DAY).unique().join(bins.unique(), how="cross").join(learnt, on=[DAY, VALUE], how="left")
        grid = grid.select(learnt.columns).sort(DAY, VALUE).with_columns(
            pl.col(COUNT).fill_null(0), pl.col(LOW).fill_null(float("inf")), pl.col(HIGH).fill_null(float("-inf"))
        )  # fmt: skip
        own = grid if known is None else grid.with_columns(pl.lit(0, dtype=pl.Int64).alias(COUNT))
        before = self._day_before(known, grid).select(
            DAY, VALUE, *(pl.coalesce(pl.col(name), own[name]) for name in (COUNT, LOW, HIGH))
        )
        return before.with_columns(up_to=pl.col(COUNT).cum_sum().over(DAY))


def at_rank(bound: str, rank: pl.Expr) -> pl.Expr:
    """Within a day's histogram: the bound of the bin that holds the number of this rank, from 1; null where there is none."""
    return pl.col(bound).filter((pl.col("up_to") >= rank) & (rank > 0)).first()
