"""(x - mean) / standard deviation, of the days before. Null becomes 0 at the end of the chain: the mean."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.encoders import Encoder, Expressions, Fits
from schemas.columns import DAY


class Standardize(Encoder):
    """Mean 0, standard deviation 1 (with n - 1, as NVTabular's Normalize); a column that never changes becomes 0.

    Days before of 1, 2 and 3: state count 3, sum 6, squares 14 -> mean 2, std 1; so 4 becomes 2.
    """

    fits: ClassVar[Fits] = "numbers"

    def statistics(self, value: pl.Expr) -> Expressions:
        """Moments: count, sum, sum of squares."""
        return {"count": value.count(), "sum": value.sum(), "squares": (value * value).sum()}

    def lookup(self, before: pl.DataFrame | None, statistics: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
        """`day`, `mean`, `std`: of the days before each day."""
        return _mean_and_std(super().lookup(before, statistics, after), DAY)

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """Subtract, then divide."""
        return (value - state["mean"]) / state["std"]

    def scale(self, state: pl.DataFrame | None) -> tuple[float, float]:
        """From the moments."""
        return _mean_and_std(state).row(0) if state is not None else (0.0, 1.0)

    def fitted_numbers(self, state: pl.DataFrame | None) -> dict[str, float | tuple[float, ...]]:
        """Mean and standard deviation."""
        mean, std = self.scale(state)
        return {"mean": mean, "std": std}

    def inverse_transform(self, encoded: pl.Series, state: pl.DataFrame | None) -> pl.Series:
        """x * standard deviation + mean."""
        mean, std = self.scale(state)
        return encoded * std + mean


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
