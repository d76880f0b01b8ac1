"""An id or a time that is there must be readable: `soon` is no time, `A-7` no integer."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import polars as pl
from pydantic import Field, PrivateAttr

from preprocessing.checks import Check
from preprocessing.source.events import INTERPRETED, as_found
from schemas.dataset import Dataset
from schemas.errors import unknown


class Readable(Check):
    """Rows whose `column` holds something that cannot be read as an id, a time or a position are bad."""

    column: str = Field(description="user_id, session_id, item_id, timestamp or position.")

    _interpreted: bool = PrivateAttr(False)

    @property
    def looks_at(self) -> tuple[str, ...]:
        return (self.column,)

    def bind(self, dataset: Dataset, columns: list[str]) -> Self:
        """Only what is interpreted can be unreadable."""
        if self.column not in INTERPRETED:
            raise unknown("column that is interpreted", self.column, INTERPRETED)
        bound = self.model_copy()
        bound._interpreted = as_found(self.column) in columns
        return bound

    def bad(self, now: datetime) -> pl.Expr:
        if not self._interpreted:  # the files hold it as it is wanted
            return pl.lit(False)
        return pl.col(self.column).is_null() & pl.col(as_found(self.column)).is_not_null()
