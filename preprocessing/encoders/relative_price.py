"""Dear or cheap for its kind: x / mean - 1, the mean of the same category on the days before.

0.5 is half as much again as usual, -0.5 half as much.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.encoders import Encoder, Expressions, Learns, finite, require
from schemas.columns import COUNT


class RelativePrice(Encoder):
    """Relative difference to the mean of events of the same `by`; 0 where nothing is known, or the mean is not positive."""

    learns: ClassVar[Learns] = "by value"

    by: str = Field("category", description="Column whose values are compared within.")

    def check(self, column: str, columns: pl.Schema) -> None:
        """Needs `by`."""
        require(self.by, columns)

    def key(self, value: pl.Expr) -> pl.Expr:
        """The category."""
        return pl.col(self.by)

    def statistics(self, value: pl.Expr) -> Expressions:
        """What the mean is told from."""
        return {COUNT: value.count(), "sum": value.sum()}

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """Divide, where there is a mean."""
        known = (learnt["sum"] > 0).fill_null(False)
        relative = pl.when(known).then(value * learnt[COUNT] / learnt["sum"] - 1).otherwise(0.0)
        return pl.when(finite(value).is_not_null()).then(relative)
