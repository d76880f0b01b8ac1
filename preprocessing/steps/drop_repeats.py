"""Drop the same item again in a row: reloads and double clicks say nothing about what comes next."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.sessions import SESSION_INDEX, changed
from preprocessing.steps import Step
from schemas.columns import ITEM_ID


class DropRepeats(Step):
    """Of consecutive events of one item in one session, keep the first."""

    needs_sessions: ClassVar[bool] = True

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Compare each row with the one before it."""
        return events.filter(changed(SESSION_INDEX) | changed(ITEM_ID))
