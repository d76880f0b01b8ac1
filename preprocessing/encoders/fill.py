"""Null to a number: a given one, or the mean or median of the days before. What is not finite counts as null."""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import Field

from preprocessing.encoders import Expressions, Fits, finite
from preprocessing.encoders._histogram import HIGH, LOW, UP_TO, Histogram, at_rank, next_day
from schemas.columns import COUNT, DAY


class Fill(Histogram):
    """x, or `value` where there is none.

    mean: sum / count. median: to within 4.3 %, and exact among few distinct numbers (see `_histogram`); of an even count,
    the middle of the two in the middle.
    """

    value: float | Literal["mean", "median"] = Field(description="A number, mean or median.")

    @property
    def fits(self) -> Fits:  # type: ignore[override]  # each of the three is fit to something else
        """Nothing, sum and count, or a histogram."""
        return {"mean": "numbers", "median": "by value"}.get(str(self.value), "nothing")  # type: ignore[return-value]

    def statistics(self, value: pl.Expr) -> Expressions:
        """What the mean or the median is made from."""
        if self.value == "median":
            return super().statistics(value)
        return {COUNT: value.count(), "sum": value.sum()}

    def lookup(self, before: pl.DataFrame | None, statistics: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
        """`day`, `count`, `sum`, or `day`, `median`: of the days before each day."""
        if self.value == "mean":
            return super().lookup(before, statistics, after)
        total = pl.col(UP_TO).max()
        ranks = (total + 1) // 2, pl.when(total > 0).then(total // 2 + 1).otherwise(0)
        middle = pl.mean_horizontal(at_rank(bound, rank) for rank in ranks for bound in (LOW, HIGH))
        return self.histograms(before, statistics).group_by(DAY, maintain_order=True).agg(median=middle)

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """x where it is finite, else the number to fill in."""
        filling: pl.Expr
        if self.value == "mean":
            filling = pl.when(state[COUNT] > 0).then(state["sum"] / state[COUNT])
        else:
            filling = state["median"] if self.value == "median" else pl.lit(float(self.value))
        return pl.coalesce(finite(value), filling)

    def fitted_numbers(self, state: pl.DataFrame | None) -> dict[str, float | tuple[float, ...]]:
        """The number that is filled in; nothing before any number was seen."""
        if self.fits == "nothing":
            return {"value": float(self.value)}
        if state is None:
            return {}
        if self.value == "mean":
            number = state.select(
                pl.when(pl.col(COUNT) > 0).then((pl.col("sum") / pl.col(COUNT)).round_sig_figs(9))
            ).item()
        else:
            number = self.lookup(state, next_day(state), state)["median"].item()
        return {"value": number} if number is not None else {}
