"""A row must satisfy an SQL condition, such as `price > 0 OR event_type <> 'purchase'`."""

from __future__ import annotations

from datetime import datetime

import polars as pl
from pydantic import Field, field_validator

from preprocessing.checks import Check
from preprocessing.sql import read_sql


class Satisfies(Check):
    """Rows of which `sql` is false are bad; as in SQL's own CHECK, rows of which it is null are good."""

    sql: str = Field(description="A condition on the row's columns.")

    @field_validator("sql")
    @classmethod
    def _reads(cls, sql: str) -> str:
        read_sql(sql)
        return sql

    @property
    def name(self) -> str:
        return self.title or f"satisfies({self.sql})"

    @property
    def looks_at(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(read_sql(self.sql).meta.root_names()))

    def bad(self, now: datetime) -> pl.Expr:
        return ~read_sql(self.sql)
