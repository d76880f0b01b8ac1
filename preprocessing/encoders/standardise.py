"""(x - mean) / standard deviation, of the training rows. Null becomes 0 at the end of the chain: the mean."""

from __future__ import annotations

from math import isfinite, sqrt

import polars as pl

from preprocessing.encoders import Encoder

LARGEST = 1e150  # its square is still a number


class Standardise(Encoder):
    """Mean 0, standard deviation 1; a column that never changes becomes 0."""

    def fit(self, rows: pl.LazyFrame, value: pl.Expr) -> pl.LazyFrame:
        """Moments: count, sum, sum of squares. Those of parts add up to those of the whole."""
        number = pl.col("number")
        known = rows.select(value.cast(pl.Float64).alias("number")).filter(number.abs() < LARGEST)
        return known.select(count=pl.len(), sum=number.sum(), sum_of_squares=(number * number).sum())

    def encode(self, value: pl.Expr, table: pl.DataFrame | None, name: str) -> pl.Expr:
        """Subtract, then divide."""
        mean, std = self.scale(table)
        return (value - mean) / std

    def scale(self, table: pl.DataFrame | None) -> tuple[float, float]:
        """From the moments."""
        assert table is not None
        count, total, squares = table.row(0)
        if not count:
            return 0.0, 1.0
        mean = total / count
        variance = squares / count - mean * mean
        # What is left of equal numbers after rounding is no variance.
        flat = variance <= 1e-12 * squares / count
        return mean, 1.0 if flat or not isfinite(variance) else sqrt(variance)
