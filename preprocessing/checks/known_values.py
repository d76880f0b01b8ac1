"""A value must be one of a list, or of a column of the item or the user table."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from preprocessing.checks import Check
from preprocessing.frames import collect
from preprocessing.source.lookups import ids_as, read_items, read_users
from preprocessing.source.values import alike
from schemas.column_types import IDS
from schemas.dataset import Dataset
from schemas.errors import InputError, unknown


class KnownValues(Check):
    """Rows whose `column` holds something else are bad; no value is no bad value."""

    column: str = Field(description="Column of the events.")
    values: tuple[bool | int | float | str, ...] = Field((), description="The good values.")
    table: Literal["items", "users"] | None = Field(None, description="Table that has the good values, instead.")
    table_column: str = Field("", description="Its column; left out, the one named as in the events.")

    _known: pl.Series = PrivateAttr()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.values) == bool(self.table):
            raise ValueError("give either values or table")
        if len({isinstance(value, str) for value in self.values}) > 1:
            raise ValueError("values mix text and numbers; quote those that are text")
        return self

    @property
    def looks_at(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def good_values(self) -> pl.Series:
        """The good values, once bound."""
        return self._known

    def says_the_same(self, other: Check) -> bool:
        return super().says_the_same(other) and isinstance(other, KnownValues) and self.table == other.table

    def bind(self, dataset: Dataset, columns: pl.Schema) -> Self:
        """Fetch the values."""
        bound = self.model_copy()
        wanted = columns[self.column]
        if not self.table:
            bound._known = self._of_yaml(wanted)
            return bound
        known = self._fetch(dataset)
        if known.dtype != wanted and self.column in IDS:
            known = known.to_frame().select(ids_as(pl.col(known.name), known.dtype, wanted)).to_series().drop_nulls()
        bound._known = known
        return bound

    def bad(self, now: datetime) -> pl.Expr:
        return ~pl.col(self.column).is_in(self._known.implode())

    def _of_yaml(self, wanted: pl.DataType) -> pl.Series:
        try:
            return alike(pl.Series(self.values), wanted)
        except InputError as error:
            raise InputError(f"it does not fit {self.column} ({wanted}): {error}") from None

    def _fetch(self, dataset: Dataset) -> pl.Series:
        source, read = (dataset.items, read_items) if self.table == "items" else (dataset.users, read_users)
        if source is None:
            raise InputError(
                f"the dataset has no table of {self.table}; add `{self.table}: {{path: ..., columns: ...}}`"
            )
        name = self.table_column or self.column
        if name not in source.columns:
            raise unknown(f"column of {self.table}", name, source.columns)
        return collect(read(dataset).select(pl.col(name).drop_nulls().unique().sort()))[name]
