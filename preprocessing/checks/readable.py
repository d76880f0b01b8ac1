"""A value that is there must fit the type of its column: `soon` is no time, `A-7` no integer, `free` no price."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

import polars as pl
from pydantic import Field, PrivateAttr

from preprocessing.checks import Check
from preprocessing.source.canonical import as_found
from schemas.column_types import ALLOWED
from schemas.columns import EVENT_TYPE
from schemas.dataset import Dataset
from schemas.errors import InputError, unknown


class Readable(Check):
    """Rows whose `column` holds something that does not fit its type are bad.

    It is always checked, of every column; named, it sets the options of one. With `unfit: null` the row stays and the value
    is null: that is counted, and more than `tolerate` of a day's rows fail the run as usual.
    """

    column: str = Field(description="A column that the dataset maps.")
    unfit: Literal["quarantine", "null"] = Field(
        "quarantine", description="quarantine: the row is set aside; null: it stays, without the value."
    )

    _may_fail: bool = PrivateAttr(False)

    @property
    def looks_at(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def keeps_rows(self) -> bool:
        return self.unfit == "null"

    def bind(self, dataset: Dataset, columns: pl.Schema) -> Self:
        """Only columns whose values the files may hold in another form can be unreadable."""
        if self.column not in dataset.events.columns:
            raise unknown("column of events.columns", self.column, dataset.events.columns)
        if self.keeps_rows and self.column in ALLOWED and self.column != EVENT_TYPE:
            raise InputError(f"{self.column} must have a value; take `unfit: quarantine`")
        bound = self.model_copy()
        bound._may_fail = as_found(self.column) in columns
        return bound

    def bad(self, now: datetime) -> pl.Expr:
        if not self._may_fail:  # the files hold it as it is wanted
            return pl.lit(False)
        return pl.col(self.column).is_null() & pl.col(as_found(self.column)).is_not_null()
