"""A number must lie between two limits, or on one side of one."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import polars as pl
from pydantic import Field, model_validator

from preprocessing.checks import Check


class InRange(Check):
    """Rows whose `column` is below `min`, above `max`, or not a number are bad; no value is no bad value."""

    column: str = Field(description="Column of numbers.")
    min: float | None = Field(None, description="Smallest good value.")
    max: float | None = Field(None, description="Largest good value.")

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    @property
    def looks_at(self) -> tuple[str, ...]:
        return (self.column,)

    def bad(self, now: datetime) -> pl.Expr:
        value = pl.col(self.column)
        bad = (value * 1.0).is_nan()  # times 1.0: text has no limits, and integers are never NaN
        if self.min is not None:
            bad = bad | (value < self.min)
        return bad | (value > self.max) if self.max is not None else bad
