"""log(1 + x): for amounts and ages, whose differences matter as ratios."""

from __future__ import annotations

import polars as pl

from preprocessing.encoders import Encoder, Expressions


class Log1p(Encoder):
    """log(1 + x). Numbers of -1 and below have none and count as missing: nothing is learnt from them, they become 0."""

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """The logarithm."""
        return value.log1p()

    def decode(self, value: pl.Expr, numbers: dict[str, float]) -> pl.Expr | None:
        """exp(x) - 1."""
        return value.exp() - 1
