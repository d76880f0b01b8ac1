"""Add columns made of others of the same row: `revenue: price * quantity`."""

from __future__ import annotations

import polars as pl
from pydantic import Field, field_validator

from preprocessing.sql import read_sql, type_on
from preprocessing.steps import Step
from schemas.errors import InputError


class Derive(Step):
    """Add columns by SQL expressions of one row, in order: a later one may use an earlier one."""

    columns: dict[str, str] = Field(min_length=1, description="New column: SQL expression.")

    @field_validator("columns")
    @classmethod
    def _read(cls, columns: dict[str, str]) -> dict[str, str]:
        for text in columns.values():
            read_sql(text)
        return columns

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Add one after the other."""
        for name, text in self.columns.items():
            value = read_sql(text)
            self.expect(events, there=value.meta.root_names(), free=[name])
            try:
                type_on(value, events.collect_schema())
            except pl.exceptions.PolarsError as error:
                raise InputError(f"step derive: {name}: {text!r} fails: {str(error).splitlines()[0]}") from None
            events = events.with_columns(value.alias(name))
        return events
