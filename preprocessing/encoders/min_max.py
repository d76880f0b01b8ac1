"""(x - min) / (max - min), of the days before: their range becomes 0 to 1, what lies outside it is not clipped."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.encoders import Combine, Encoder, Expressions, Fits, finite


class MinMax(Encoder):
    """As NVTabular's NormalizeMinMax: where all numbers so far are equal, x / 2x, which is a half, and null for 0."""

    fits: ClassVar[Fits] = "numbers"
    combine: ClassVar[dict[str, Combine]] = {"min": "min", "max": "max"}

    def statistics(self, value: pl.Expr) -> Expressions:
        """The range."""
        return {"min": value.min(), "max": value.max()}

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """Subtract, then divide."""
        low, high = state["min"], state["max"]
        varies, constant = high > low, (high == low) & (finite(value) != 0)
        return pl.when(varies).then((value - low) / (high - low)).when(constant).then(0.5)

    def scale(self, state: pl.DataFrame | None) -> tuple[float, float]:
        """The smallest number and the width of the range; (0, 1) where there is none."""
        low, high = _range(state)
        return (low, high - low) if low is not None and high is not None and high > low else (0.0, 1.0)

    def fitted_numbers(self, state: pl.DataFrame | None) -> dict[str, float | tuple[float, ...]]:
        """The range; nothing before any number was seen."""
        low, high = _range(state)
        return {"min": low, "max": high} if low is not None and high is not None else {}

    def inverse_transform(self, encoded: pl.Series, state: pl.DataFrame | None) -> pl.Series | None:
        """x * (max - min) + min; the only number there was where all were equal; None before any number was seen."""
        low, high = _range(state)
        if low is None or high is None:
            return None
        return encoded * (high - low) + low


def _range(state: pl.DataFrame | None) -> tuple[float | None, float | None]:
    return state.select("min", "max").row(0) if state is not None else (None, None)
