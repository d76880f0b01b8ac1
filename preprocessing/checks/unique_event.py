"""An event must be there once: a source that is delivered again holds it twice."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import polars as pl
from pydantic import Field

from preprocessing.checks import Check, same_as_before
from schemas.columns import EVENT_TYPE, ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset

IDENTITY = (USER_ID, SESSION_ID, ITEM_ID, TIMESTAMP, POSITION, EVENT_TYPE)


class UniqueEvent(Check):
    """Of a user's good events of a local day that are equal in `columns`, all but the first are bad.

    The first is the one with the smallest values in the other columns, in their order.
    """

    columns: tuple[str, ...] = Field(
        (), description="Left out: user, session, item, time, position and type, as far as the events have them."
    )

    @property
    def name(self) -> str:
        named = f"({', '.join(self.columns)})" if self.columns else ""
        return self.title or f"unique_event{named}"

    @property
    def looks_at(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((USER_ID, *self.columns)))

    @property
    def in_order_of(self) -> tuple[str, ...]:
        return self.columns

    def bind(self, dataset: Dataset, columns: pl.Schema) -> Self:
        """Find the columns that make an event."""
        known = tuple(name for name in IDENTITY if name in columns)
        return self.model_copy(update={"columns": self.columns or known, "title": self.name})

    def bad(self, now: datetime) -> pl.Expr:
        return same_as_before(self.columns)
