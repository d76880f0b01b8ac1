"""Day of the week in the dataset's time zone: 3 is Monday, 9 Sunday, 1 is null."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.encoders import Encoder, Expressions, Kind, Takes
from schemas.columns import FIRST_ID, NULL


class Weekday(Encoder):
    """Ids for the 7 days; no vocabulary, so that they mean the same in every run."""

    kind: ClassVar[Kind] = "categorical"
    takes: ClassVar[Takes] = "times"

    time_zone: str = Field("UTC", description="Zone in which days begin; the dataset's if left out.")

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """2 + ISO weekday, which begins at 1."""
        local = value if self.time_zone == "UTC" else value.dt.convert_time_zone(self.time_zone)
        return (local.dt.weekday().cast(pl.Int32) + (FIRST_ID - 1)).fill_null(NULL)

    def cardinality(self, state: pl.DataFrame | None) -> int:
        """7 and the three reserved ids."""
        return FIRST_ID + 7
