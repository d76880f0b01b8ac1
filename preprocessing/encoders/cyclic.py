"""Sine or cosine of the time of day, week or year, so that 23:59 is next to 00:00: sin or cos of 2 pi * time / period.

Take both, as two features: one alone cannot tell morning from afternoon.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field

from preprocessing.encoders import Encoder, Expressions, Takes

DAY_SECONDS = 86_400
PERIODS = {"hour": DAY_SECONDS, "weekday": 7 * DAY_SECONDS, "day_of_year": 365.25 * DAY_SECONDS}


class Cyclic(Encoder):
    """Where in a recurring period an event lies, to the second, as one of the two coordinates of a point on a circle."""

    takes: ClassVar[Takes] = "times"

    period: Literal["hour", "weekday", "day_of_year"] | Annotated[float, Field(gt=0)] = Field(
        description="hour: a day, from midnight; weekday: a week, from Monday; day_of_year: a year; or seconds, from 1970."
    )
    part: Literal["sin", "cos"] = Field(description="Which coordinate.")
    time_zone: str = Field("UTC", description="Zone in which days begin; the dataset's if left out. Seconds are UTC.")

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """The coordinate."""
        period = self.period if isinstance(self.period, float) else PERIODS[self.period]
        angle = self._seconds(value) * (2 * math.pi / period)
        return angle.sin() if self.part == "sin" else angle.cos()

    def _seconds(self, value: pl.Expr) -> pl.Expr:
        """Since the period began, or began some time ago."""
        if isinstance(self.period, float):
            return value.dt.epoch("us") % round(self.period * 1e6) / 1e6
        local = value if self.time_zone == "UTC" else value.dt.convert_time_zone(self.time_zone)
        hour, minute, second = (part.cast(pl.Int32) for part in (local.dt.hour(), local.dt.minute(), local.dt.second()))
        days = {
            "hour": pl.lit(0, dtype=pl.Int32),
            "weekday": local.dt.weekday().cast(pl.Int32) - 1,
            "day_of_year": local.dt.ordinal_day().cast(pl.Int32) - 1,
        }
        return days[self.period] * DAY_SECONDS + hour * 3_600 + minute * 60 + second
