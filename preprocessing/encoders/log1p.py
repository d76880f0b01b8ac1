"""log(1 + x): for amounts and ages, whose differences matter as ratios."""

from __future__ import annotations

import polars as pl

from preprocessing.encoders import Encoder, Expressions


class Log1p(Encoder):
    """log(1 + x). Numbers of -1 and below have none and count as missing: nothing is fit to them, they become 0."""

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """The logarithm."""
        return value.log1p()

    def inverse_transform(self, encoded: pl.Series, state: pl.DataFrame | None) -> pl.Series:
        """exp(x) - 1."""
        return encoded.exp() - 1
