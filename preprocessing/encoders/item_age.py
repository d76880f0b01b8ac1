"""Hours since an item was first seen: what is new is clicked differently from what has been there for weeks."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl

from preprocessing.encoders import Encoder
from schemas.columns import ITEM_ID


class ItemAge(Encoder):
    """Hours between the item's first event, by anyone, and this one; 0 for the first.

    Items of the test day need a first sight too, so all rows are looked at. Nothing of the future gets in: an item's first
    event is never later than the event whose age is told.
    """

    takes: ClassVar[Literal["anything", "numbers", "times"]] = "times"
    fits_on: ClassVar[Literal["training rows", "all rows"]] = "all rows"
    table_folder: ClassVar[str] = "first_seen"

    def fit(self, rows: pl.LazyFrame, value: pl.Expr) -> pl.LazyFrame:
        """When each item was first seen."""
        return rows.group_by(ITEM_ID).agg(value.min().alias("first_seen")).sort(ITEM_ID)

    def join(self, events: pl.LazyFrame, value: pl.Expr, table: pl.DataFrame | None, name: str) -> pl.LazyFrame:
        """Look every item up."""
        assert table is not None
        first = table.lazy().select(ITEM_ID, pl.col("first_seen").alias(_first_seen(name)))
        return events.join(first, on=ITEM_ID, how="left", maintain_order="left")

    def encode(self, value: pl.Expr, table: pl.DataFrame | None, name: str) -> pl.Expr:
        """Hours, to the second."""
        return (value - pl.col(_first_seen(name))).dt.total_seconds() / 3600


def _first_seen(name: str) -> str:
    return f"first seen for {name}"
