"""(x - mean) / standard deviation, of the days before. Null becomes 0 at the end of the chain: the mean."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.encoders import Encoder, Expressions, Learns, finite


class Standardise(Encoder):
    """Mean 0, standard deviation 1 (with n - 1, as NVTabular's Normalize); a column that never changes becomes 0."""

    learns: ClassVar[Learns] = "numbers"

    def statistics(self, value: pl.Expr) -> Expressions:
        """Moments: count, sum, sum of squares."""
        number = finite(value)
        return {"count": number.count(), "sum": number.sum(), "squares": (number * number).sum()}

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """Subtract, then divide."""
        count = pl.max_horizontal(learnt["count"], pl.lit(1))
        mean = learnt["sum"] / count
        # What is left of equal numbers after rounding is no variance.
        spread = learnt["squares"] - count * mean * mean
        varies = (learnt["count"] > 1) & (spread > 1e-12 * learnt["squares"])
        std = pl.when(varies).then((spread / pl.max_horizontal(count - 1, pl.lit(1))).sqrt()).otherwise(1.0)
        return (value - mean) / std

    def scale(self, numbers: dict[str, float]) -> tuple[float, float]:
        """From the moments."""
        if not numbers:
            return 0.0, 1.0
        row = pl.DataFrame([numbers]).lazy()
        learnt = {name: pl.col(name) for name in numbers}
        zero, one = (row.select(self.encode(pl.lit(x), learnt)).collect().item() for x in (0.0, 1.0))
        return -zero / (one - zero), 1 / (one - zero)

    def decode(self, value: pl.Expr, numbers: dict[str, float]) -> pl.Expr | None:
        """x * standard deviation + mean."""
        mean, std = self.scale(numbers)
        return value * std + mean
