"""A time must be recent enough: 0, -1, year 1 and minus infinity are what programs write when there is no time."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Self
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import Field, PrivateAttr

from preprocessing.checks import Check
from preprocessing.source.index import EARLIEST
from schemas.columns import TIMESTAMP
from schemas.dataset import Dataset


class NotBefore(Check):
    """Rows whose `column` lies before the local day `earliest` are bad; no time is no bad time."""

    column: str = Field(TIMESTAMP, description="Column of times.")
    earliest: date = Field(
        EARLIEST, ge=date(1, 1, 3), description="The first day that is believed, in the dataset's zone."
    )

    _start: datetime = PrivateAttr(datetime.combine(EARLIEST, time(), UTC))

    @property
    def looks_at(self) -> tuple[str, ...]:
        return (self.column,)

    def bind(self, dataset: Dataset, columns: pl.Schema) -> Self:
        """Days begin in the dataset's time zone."""
        bound = self.model_copy()
        bound._start = datetime.combine(self.earliest, time(), ZoneInfo(dataset.time_zone)).astimezone(UTC)
        return bound

    def bad(self, now: datetime) -> pl.Expr:
        return pl.col(self.column) < self._start
