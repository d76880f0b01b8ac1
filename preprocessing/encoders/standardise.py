"""(x - mean) / standard deviation, of the days before. Null becomes 0 at the end of the chain: the mean."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.encoders import Encoder, Expressions, Learns
from schemas.columns import DAY


class Standardise(Encoder):
    """Mean 0, standard deviation 1 (with n - 1, as NVTabular's Normalize); a column that never changes becomes 0."""

    learns: ClassVar[Learns] = "numbers"

    def statistics(self, value: pl.Expr) -> Expressions:
        """Moments: count, sum, sum of squares."""
        return {"count": value.count(), "sum": value.sum(), "squares": (value * value).sum()}

    def table(self, known: pl.DataFrame | None, learnt: pl.DataFrame, merged: pl.DataFrame) -> pl.DataFrame:
        """Mean and standard deviation of the days before each day."""
        return _mean_and_std(super().table(known, learnt, merged), DAY)

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """Subtract, then divide."""
        return (value - learnt["mean"]) / learnt["std"]

    def scale(self, numbers: dict[str, float]) -> tuple[float, float]:
        """From the moments."""
        return _mean_and_std(pl.DataFrame([numbers])).row(0) if numbers else (0.0, 1.0)

    def decode(self, value: pl.Expr, numbers: dict[str, float]) -> pl.Expr | None:
        """x * standard deviation + mean."""
        mean, std = self.scale(numbers)
        return value * std + mean


def _mean_and_std(moments: pl.DataFrame, *keep: str) -> pl.DataFrame:
    """Both to nine digits: the order in which parts were added up does not show in them."""
    count = pl.max_horizontal("count", pl.lit(1))
    mean = pl.col("sum") / count
    # What is left of equal numbers after rounding is no variance.
    spread = pl.col("squares") - count * mean * mean
    varies = (pl.col("count") > 1) & (spread > 1e-12 * pl.col("squares"))
    std = pl.when(varies).then((spread / (count - 1)).sqrt()).otherwise(1.0)
    rounded = (number.round_sig_figs(9) for number in (mean, std))
    return moments.select(*keep, *(number.alias(name) for name, number in zip(("mean", "std"), rounded, strict=True)))
