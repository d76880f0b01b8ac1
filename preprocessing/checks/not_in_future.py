"""A time must be past: what is said to happen tomorrow comes from a wrong clock or a wrong unit."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
from pydantic import Field

from preprocessing.checks import Check
from schemas.columns import TIMESTAMP


class NotInFuture(Check):
    """Rows whose `column` is later than now, by more than `grace_minutes`, are bad; no time is no bad time."""

    column: str = Field(TIMESTAMP, description="Column of times.")
    grace_minutes: float = Field(0.0, ge=0, description="How far clocks may be ahead.")

    @property
    def looks_at(self) -> tuple[str, ...]:
        return (self.column,)

    def bad(self, now: datetime) -> pl.Expr:
        return pl.col(self.column) > now + timedelta(minutes=self.grace_minutes)
