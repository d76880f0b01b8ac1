"""Drop users with few events, of a dataset that is taken whole."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.steps import Step
from schemas.columns import USER_ID


class DropShortUsers(Step):
    """Drop users with fewer than `min_events` events."""

    needs_all_rows: ClassVar[bool] = True

    min_events: int = Field(5, ge=1, description="Fewest events of a user who is kept.")

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Count once; k_core counts until nothing changes."""
        active = events.group_by(USER_ID).len().filter(pl.col("len") >= self.min_events)
        return events.join(active, on=USER_ID, how="semi", maintain_order="left")
