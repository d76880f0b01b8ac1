"""Days between a date and the event, such as an item's first day in the shop, or the day a user registered."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.encoders import Encoder, Expressions, Takes, require
from preprocessing.source.values import local_day
from schemas.columns import TIMESTAMP


class Age(Encoder):
    """The event's local day less the date, in days; 0 where the date is later."""

    takes: ClassVar[Takes] = "dates"

    time_zone: str = Field("UTC", description="Zone in which days begin; the dataset's if left out.")

    def check(self, column: str, columns: pl.Schema) -> None:
        """Needs times."""
        require(TIMESTAMP, columns)

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """Whole days."""
        return (local_day(pl.col(TIMESTAMP), self.time_zone) - value).dt.total_days().clip(0, None)
