"""Null to a number: a given one, or the mean or median of the days before. What is not finite counts as null."""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import Field

from preprocessing.encoders import Expressions, Learns, finite
from preprocessing.encoders._histogram import HIGH, LOW, Histogram, at_rank
from schemas.columns import COUNT, DAY


class Fill(Histogram):
    """x, or `value` where there is none.

    mean: sum / count. median: to within 4.3 %, and exact among few distinct numbers (see `_histogram`); of an even count,
    the middle of the two in the middle.
    """

    value: float | Literal["mean", "median"] = Field(description="A number, mean or median.")

    @property
    def learns(self) -> Learns:  # type: ignore[override]  # of the three, each learns something else
        """Nothing, sum and count, or a histogram."""
        return {"mean": "numbers", "median": "by value"}.get(str(self.value), "nothing")  # type: ignore[return-value]

    def statistics(self, value: pl.Expr) -> Expressions:
        """What the mean or the median is told from."""
        if self.value == "median":
            return super().statistics(value)
        return {COUNT: value.count(), "sum": value.sum()}

    def table(self, known: pl.DataFrame | None, learnt: pl.DataFrame, merged: pl.DataFrame) -> pl.DataFrame:
        """Each day's sum and count, or its median."""
        if self.value == "mean":
            return super().table(known, learnt, merged)
        total = pl.col("up_to").max()
        ranks = (total + 1) // 2, pl.when(total > 0).then(total // 2 + 1).otherwise(0)
        middle = pl.mean_horizontal(at_rank(bound, rank) for rank in ranks for bound in (LOW, HIGH))
        return self.before(known, learnt).group_by(DAY, maintain_order=True).agg(median=middle)

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """Fill."""
        filling: pl.Expr
        if self.value == "mean":
            filling = pl.when(learnt[COUNT] > 0).then(learnt["sum"] / learnt[COUNT])
        else:
            filling = learnt["median"] if self.value == "median" else pl.lit(float(self.value))
        return pl.coalesce(finite(value), filling)
