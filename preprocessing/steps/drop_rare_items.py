"""Drop events of rare items, of a dataset that is taken whole."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.steps import Step
from schemas.columns import ITEM_ID


class DropRareItems(Step):
    """Drop events of items with fewer than `min_count` events."""

    needs_all_rows: ClassVar[bool] = True

    min_count: int = Field(5, ge=1, description="Fewest events of an item that is kept.")

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Count once; k_core counts until nothing changes."""
        common = events.group_by(ITEM_ID).len().filter(pl.col("len") >= self.min_count)
        return events.join(common, on=ITEM_ID, how="semi", maintain_order="left")
