"""Keep the k-core: users and items that have enough events with each other, as research datasets are often cut."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.frames import collect
from preprocessing.steps import Step
from schemas.columns import ITEM_ID, USER_ID


class KCore(Step):
    """Drop rare items and users with few events, again and again until neither are left."""

    needs_all_rows: ClassVar[bool] = True

    min_per_item: int = Field(5, ge=1, description="Fewest events of an item that is kept.")
    min_per_user: int = Field(5, ge=1, description="Fewest events of a user who is kept.")

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """How many rounds it takes depends on the events, so their two columns are looked at here and now."""
        left, before = collect(events.select(USER_ID, ITEM_ID)), -1
        while left.height != before:
            before = left.height
            for key, fewest in ((ITEM_ID, self.min_per_item), (USER_ID, self.min_per_user)):
                enough = left.lazy().group_by(key).len().filter(pl.col("len") >= fewest)
                left = collect(left.lazy().join(enough, on=key, how="semi", maintain_order="left"))
        # A row went because its item or its user did, so those that are left tell which rows are.
        for key in (ITEM_ID, USER_ID):
            events = events.join(left.lazy().select(key).unique(), on=key, how="semi", maintain_order="left")
        return events
