"""Hours since an item was first seen: what is new is clicked differently from what has been there for weeks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import polars as pl

from preprocessing.encoders import Combine, Encoder, Expressions, Fits, Takes
from preprocessing.groups import Groups
from schemas.columns import ITEM_ID


class ItemAge(Encoder):
    """Hours between the item's first event, by anyone, and this one, to the second; 0 for the first.

    Nothing of the future gets in: an item's first event is never later than the event whose age is asked for, so later days
    do not change it.
    """

    takes: ClassVar[Takes] = "times"
    fits: ClassVar[Fits] = "by value"
    combine: ClassVar[dict[str, Combine]] = {"first_seen": "min"}
    by_day: ClassVar[bool] = False

    def key(self, value: pl.Expr) -> pl.Expr:
        """The item."""
        return pl.col(ITEM_ID)

    def statistics(self, value: pl.Expr) -> Expressions:
        """When each item was first seen."""
        return {"first_seen": value.min()}

    def count_up(self, groups: Groups, values: pl.Series) -> dict[str, pl.Series] | None:
        """When each item was first seen."""
        if values.null_count():
            return None
        first = np.full(groups.size, np.iinfo(np.int64).max)
        np.minimum.at(first, groups.of_rows, values.to_physical().to_numpy())
        return {"first_seen": pl.Series(first).cast(values.dtype)}

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """Hours, to the second."""
        return (value - state["first_seen"]).dt.total_seconds() / 3600
