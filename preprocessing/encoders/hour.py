"""Hour of the day in the dataset's time zone: 3 is midnight to one, 26 the hour before midnight, 1 is null."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.encoders import Encoder, Expressions, Kind, Takes
from schemas.columns import FIRST_ID, NULL

HOUR = 3_600_000_000  # microseconds


class Hour(Encoder):
    """Ids for the 24 hours; no vocabulary, so that they mean the same in every run."""

    kind: ClassVar[Kind] = "categorical"
    takes: ClassVar[Takes] = "times"

    time_zone: str = Field("UTC", description="Zone in which hours are counted; the dataset's if left out.")

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """3 + hour."""
        if self.time_zone == "UTC":  # a third of what the calendar costs
            hour = value.dt.epoch("us") // HOUR % 24
        else:
            hour = value.dt.convert_time_zone(self.time_zone).dt.hour()
        return (hour.cast(pl.Int32) + FIRST_ID).fill_null(NULL)

    def cardinality(self, state: pl.DataFrame | None) -> int:
        """24 and the three reserved ids."""
        return FIRST_ID + 24
