"""Encoders, one a file: they turn a column of events into ids or numbers a model can take.

An encoder named under `features` in a dataset is the class its file is named after. Its fields are its options. It learns
what it must from training rows only (`fit` gives a plan for a small table), and from then on is a join and an expression.
A chain such as [log1p, standardise] applies several in order.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict


class Encoder(BaseModel):
    """One encoder. The default learns nothing, joins nothing and changes nothing.

    `value` is the expression that comes in; `table` is what `fit` gave (None if nothing); `name` is the feature's, to keep
    helper columns apart. Null in, null out: what is still null at the end of a chain of numbers becomes 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[Literal["categorical", "continuous"]] = "continuous"
    """What comes out: ids (only at the end of a chain) or numbers."""
    takes: ClassVar[Literal["anything", "numbers", "times"]] = "numbers"
    """What may come in."""
    fits_on: ClassVar[Literal["training rows", "all rows"]] = "training rows"
    """All rows only where a row's value cannot depend on later rows."""
    table_folder: ClassVar[str] = ""
    """Folder in which the fitted table is kept; without one it must be a single row of numbers, kept in encoders.json."""

    def fit(self, rows: pl.LazyFrame, value: pl.Expr) -> pl.LazyFrame | None:
        """A plan for the table to learn from `rows`."""
        return None

    def join(self, events: pl.LazyFrame, value: pl.Expr, table: pl.DataFrame | None, name: str) -> pl.LazyFrame:
        """Add helper columns; rows and their order stay."""
        return events

    def encode(self, value: pl.Expr, table: pl.DataFrame | None, name: str) -> pl.Expr:
        """The encoded value."""
        return value

    def cardinality(self, table: pl.DataFrame | None) -> int | None:
        """Categorical: ids are below this."""
        return None

    def scale(self, table: pl.DataFrame | None) -> tuple[float, float]:
        """Mean and standard deviation the encoder subtracts and divides by."""
        return 0.0, 1.0
