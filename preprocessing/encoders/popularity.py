"""How many events the value had on the days before: of an item, how popular it was when it was shown.

Counts grow with the days and span decades: follow it by log1p and standardize.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.encoders import Encoder, Expressions, Fits, Takes, require
from schemas.columns import COUNT


class Popularity(Encoder):
    """The number of earlier days' events with the same value; 0 for what is new and on the first day."""

    takes: ClassVar[Takes] = "anything"
    fits: ClassVar[Fits] = "by value"

    by: str | None = Field(None, description="Column whose values are counted; the feature's own if left out.")

    def check(self, column: str, columns: pl.Schema) -> None:
        """Needs `by`."""
        require(self.by or column, columns)

    def key(self, value: pl.Expr) -> pl.Expr:
        """What is counted."""
        return pl.col(self.by) if self.by else value

    def statistics(self, value: pl.Expr) -> Expressions:
        """Events."""
        return {COUNT: pl.len().cast(pl.Int64)}

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """The count, 0 where there is none; null for null."""
        return pl.when(self.key(value).is_not_null()).then(state[COUNT].fill_null(0))
