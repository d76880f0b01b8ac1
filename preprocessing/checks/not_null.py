"""A value must be there."""

from __future__ import annotations

from datetime import datetime

import polars as pl
from pydantic import Field

from preprocessing.checks import Check


class NotNull(Check):
    """Rows without a value in `column` are bad."""

    column: str = Field(description="Column that must have a value.")

    @property
    def looks_at(self) -> tuple[str, ...]:
        return (self.column,)

    def bad(self, now: datetime) -> pl.Expr:
        return pl.col(self.column).is_null()
