"""Drop the same item again anywhere in a session, for models of what a person has not looked at yet."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from preprocessing.sessions import SESSION_INDEX
from preprocessing.steps import Step
from schemas.columns import ITEM_ID


class DropDuplicates(Step):
    """Of all events of one item in one session, keep one."""

    needs_sessions: ClassVar[bool] = True

    keep: Literal["first", "last"] = Field("first", description="Which of an item's events is kept.")

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Rows are in order of time, so the first is the earliest."""
        return events.unique([SESSION_INDEX, ITEM_ID], keep=self.keep, maintain_order=True)
