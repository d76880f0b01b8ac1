"""Drop the same item again in a row: reloads and double clicks say nothing about what comes next."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from preprocessing.sessions import SESSION_INDEX
from preprocessing.steps import Step
from schemas.columns import ITEM_ID


class DropRepeats(Step):
    """Of consecutive events of one item in one session, keep one."""

    needs_sessions: ClassVar[bool] = True

    keep: Literal["first", "last"] = Field("first", description="Which of the events in a row is kept.")

    def keeps(self) -> pl.Expr:
        """Compare each row with its neighbour."""
        neighbour = {"first": 1, "last": -1}[self.keep]
        session, item = (pl.col(name).ne_missing(pl.col(name).shift(neighbour)) for name in (SESSION_INDEX, ITEM_ID))
        return session | item

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Drop what repeats its neighbour."""
        return events.filter(self.keeps())
