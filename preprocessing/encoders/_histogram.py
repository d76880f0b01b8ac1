"""Histograms that add up over days and parts, for quantiles without sorting: what `quantile` and `fill: median` are fit to.

Bins are fixed: zero, and for each sign 1,000 whose bounds are a factor of exp(1/24) apart, from 7e-7 to 8e11; the outermost
take all that lies beyond. A bin keeps its count and the smallest and largest number in it, so a quantile is off by at most
4.3 % of itself, and exact where its bin holds one number, as those of integers up to 20 do.
"""

from __future__ import annotations

from datetime import date
from typing import ClassVar

import polars as pl

from preprocessing.encoders import Combine, Encoder, Expressions, Fits
from schemas.columns import COUNT, DAY, VALUE

PER_E, MIDDLE, BINS = 24, 341, 1_000  # 1.0 lies in the middle of bin 341: round numbers are on no bound
LOW, HIGH, UP_TO = "low", "high", "up_to"


class Histogram(Encoder):
    """An encoder that is fit to how numbers are distributed: `value` (the bin), `count`, `low`, `high`.

    Of 1.0, 1.0 and -2.0: bin 341 with count 2, low 1.0, high 1.0, and bin -358 with count 1, low -2.0, high -2.0.
    """

    fits: ClassVar[Fits] = "by value"
    combine: ClassVar[dict[str, Combine]] = {LOW: "min", HIGH: "max"}

    def key(self, value: pl.Expr) -> pl.Expr:
        """The bin. Null goes to that of zero, uncounted, so that every day has a row."""
        place = (value.abs().log() * PER_E + (MIDDLE + 0.5)).clip(1, BINS).cast(pl.Int32)
        return pl.when(value > 0).then(place).when(value < 0).then(-place).otherwise(pl.lit(0, dtype=pl.Int32))

    def statistics(self, value: pl.Expr) -> Expressions:
        """Count and bounds of what is in a bin."""
        return {COUNT: value.count().cast(pl.Int64), LOW: value.min(), HIGH: value.max()}

    def histograms(self, before: pl.DataFrame | None, statistics: pl.DataFrame) -> pl.DataFrame:
        """For each day of `statistics`, the histogram of all days before it, in order of day and bin.

        With the column `up_to`, the count of the bin and all lower ones.
        """
        by_bin = self.sum_parts(statistics)
        bins = by_bin.select(VALUE) if before is None else pl.concat([before.select(VALUE), by_bin.select(VALUE)])
        # Every bin on every day: a day without numbers in a bin still has those of the days before it.
        grid = by_bin.select(DAY).unique().join(bins.unique(), how="cross").join(by_bin, on=[DAY, VALUE], how="left")
        grid = grid.select(by_bin.columns).sort(DAY, VALUE).with_columns(
            pl.col(COUNT).fill_null(0), pl.col(LOW).fill_null(float("inf")), pl.col(HIGH).fill_null(float("-inf"))
        )  # fmt: skip
        own = grid if before is None else grid.with_columns(pl.lit(0, dtype=pl.Int64).alias(COUNT))
        earlier = self._days_before(before, grid).select(
            DAY, VALUE, *(pl.coalesce(pl.col(name), own[name]) for name in (COUNT, LOW, HIGH))
        )
        return earlier.with_columns(pl.col(COUNT).cum_sum().over(DAY).alias(UP_TO))


def at_rank(bound: str, rank: pl.Expr) -> pl.Expr:
    """Within a day's histogram: the bound of the bin that holds the number of this rank, from 1; null where there is none."""
    return pl.col(bound).filter((pl.col(UP_TO) >= rank) & (rank > 0)).first()


def next_day(state: pl.DataFrame) -> pl.DataFrame:
    """The statistics of a day without numbers: `lookup` with them says what the day after the state is encoded with."""
    nothing = {DAY: date.max, VALUE: 0, COUNT: 0, LOW: None, HIGH: None}
    return pl.DataFrame([nothing], schema={DAY: pl.Date, **state.schema})
