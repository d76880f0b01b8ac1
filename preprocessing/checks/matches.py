"""A text must have a form, such as three letters and four digits."""

from __future__ import annotations

from datetime import datetime

import polars as pl
from pydantic import Field, field_validator

from preprocessing.checks import Check


class Matches(Check):
    """Rows whose `column` the regular expression does not match are bad; no value is no bad value."""

    column: str = Field(description="Column of text.")
    pattern: str = Field(description="Regular expression, found anywhere in the text; ^ and $ hold it to the ends.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            pl.Series([""]).str.contains(pattern)
        except pl.exceptions.ComputeError as error:
            raise ValueError(f"not a regular expression ({' '.join(str(error).split())})") from None
        return pattern

    @property
    def looks_at(self) -> tuple[str, ...]:
        return (self.column,)

    def bad(self, now: datetime) -> pl.Expr:
        return ~pl.col(self.column).str.contains(self.pattern)
