"""Dear or cheap for its kind: x / mean - 1, the mean of the same category on the days before.

0.5 is half as much again as usual, -0.5 half as much.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.encoders import Encoder, Expressions, Fits, finite, require
from schemas.columns import COUNT


class RelativePrice(Encoder):
    """Relative difference to the mean of events of the same `by`; 0 where there is no mean yet, or it is not positive."""

    fits: ClassVar[Fits] = "by value"

    by: str = Field("category", description="Column whose values are compared within.")

    def check(self, column: str, columns: pl.Schema) -> None:
        """Needs `by`."""
        require(self.by, columns)

    def key(self, value: pl.Expr) -> pl.Expr:
        """The category."""
        return pl.col(self.by)

    def statistics(self, value: pl.Expr) -> Expressions:
        """What the mean is made from."""
        return {COUNT: value.count(), "sum": value.sum()}

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """Divide, where there is a mean."""
        has_mean = (state["sum"] > 0).fill_null(False)
        relative = pl.when(has_mean).then(value * state[COUNT] / state["sum"] - 1).otherwise(0.0)
        return pl.when(finite(value).is_not_null()).then(relative)
