"""Day of the week in the dataset's time zone: 3 is Monday, 9 Sunday, 1 is null."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl

from preprocessing.encoders import Encoder
from schemas.columns import FIRST_ID, NULL


class Weekday(Encoder):
    """Ids for the 7 days; no vocabulary, so that they mean the same in every run."""

    kind: ClassVar[Literal["categorical", "continuous"]] = "categorical"
    takes: ClassVar[Literal["anything", "numbers", "times"]] = "times"

    time_zone: str = "UTC"

    def encode(self, value: pl.Expr, table: pl.DataFrame | None, name: str) -> pl.Expr:
        """2 + ISO weekday, which begins at 1."""
        local = value if self.time_zone == "UTC" else value.dt.convert_time_zone(self.time_zone)
        return (local.dt.weekday().cast(pl.Int32) + (FIRST_ID - 1)).fill_null(NULL)

    def cardinality(self, table: pl.DataFrame | None) -> int:
        """7 and the three reserved ids."""
        return FIRST_ID + 7
