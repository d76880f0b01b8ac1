"""Hours since an item was first seen: what is new is clicked differently from what has been there for weeks."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.encoders import Adds, Encoder, Expressions, Learns, Takes
from schemas.columns import ITEM_ID


class ItemAge(Encoder):
    """Hours between the item's first event, by anyone, and this one, to the second; 0 for the first.

    Nothing of the future gets in: an item's first event is never later than the event whose age is told, so what is learnt
    on later days does not change it.
    """

    takes: ClassVar[Takes] = "times"
    learns: ClassVar[Learns] = "by value"
    adds_up: ClassVar[dict[str, Adds]] = {"first_seen": "min"}
    timeless: ClassVar[bool] = True

    def key(self, value: pl.Expr) -> pl.Expr:
        """The item."""
        return pl.col(ITEM_ID)

    def statistics(self, value: pl.Expr) -> Expressions:
        """When each item was first seen."""
        return {"first_seen": value.min()}

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """Hours, to the second."""
        return (value - learnt["first_seen"]).dt.total_seconds() / 3600
