"""(x - min) / (max - min), of the days before: the range seen so far becomes 0 to 1, what lies outside it is not clipped."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.encoders import Adds, Encoder, Expressions, Learns, finite


class MinMax(Encoder):
    """As NVTabular's NormalizeMinMax: where all numbers so far are equal, x / 2x, which is a half, and null for 0."""

    learns: ClassVar[Learns] = "numbers"
    adds_up: ClassVar[dict[str, Adds]] = {"min": "min", "max": "max"}

    def statistics(self, value: pl.Expr) -> Expressions:
        """The range."""
        return {"min": value.min(), "max": value.max()}

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """Subtract, then divide."""
        low, high = learnt["min"], learnt["max"]
        varies, constant = high > low, (high == low) & (finite(value) != 0)
        return pl.when(varies).then((value - low) / (high - low)).when(constant).then(0.5)

    def scale(self, numbers: dict[str, float]) -> tuple[float, float]:
        """The smallest number and the width of the range."""
        low, high = numbers.get("min"), numbers.get("max")
        return (low, high - low) if low is not None and high is not None and high > low else (0.0, 1.0)

    def decode(self, value: pl.Expr, numbers: dict[str, float]) -> pl.Expr | None:
        """x * (max - min) + min."""
        low, high = numbers["min"], numbers["max"]
        return value * (high - low) + low if high > low else pl.when(value.is_not_null()).then(pl.lit(low))
