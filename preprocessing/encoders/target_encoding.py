"""What a value's earlier events led to: the mean of a target, drawn towards the overall mean while there are few.

    (sum + p * overall mean) / (count + p), of the value's events on the days before, for a smoothing of p events

A day is encoded with the days before it, so no event's own target is in its code. A dataset that is taken as one batch has
no days before: there each event is left out of its own value's and the overall sums. The code then still betrays its own
target a little (by 1 / count), so let `smoothing` be well above 0.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.encoders import Encoder, Expressions, Fits, Takes, finite, require
from preprocessing.sessions import ONE_BATCH, is_last
from schemas.columns import COUNT, DAY, VALUE
from schemas.errors import InputError

ALL_COUNT, ALL_SUM = "all count", "all sum"


class TargetEncoding(Encoder):
    """Smoothed mean of `target` by value; the overall mean for what is new, null for null and on the first day."""

    takes: ClassVar[Takes] = "anything"
    fits: ClassVar[Fits] = "by value"

    target: str = Field(description="Column of numbers or booleans, such as whether the event was a purchase.")
    smoothing: float = Field(20.0, ge=0, description="How many events at the overall mean each value starts with.")

    def check(self, column: str, columns: pl.Schema) -> None:
        """Needs a target of numbers."""
        require(self.target, columns)
        if not (columns[self.target].is_numeric() or columns[self.target] == pl.Boolean):
            raise InputError(f"target {self.target!r} holds {columns[self.target]}; numbers or booleans have a mean.")

    def statistics(self, value: pl.Expr) -> Expressions:
        """What the mean is made from."""
        target = finite(pl.col(self.target))
        return {COUNT: target.count().cast(pl.Int64), "sum": target.sum()}

    def lookup(self, before: pl.DataFrame | None, statistics: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
        """By day and value, the value's and all values' counts and sums of the days before (of the batch, if it is one)."""
        by_value = self.sum_parts(statistics)
        totals = by_value.group_by(DAY).agg(pl.col(COUNT).sum().alias(ALL_COUNT), pl.col("sum").sum().alias(ALL_SUM))
        if (by_value[DAY] == ONE_BATCH).all():
            return by_value.join(totals, on=DAY)
        start = (
            {ALL_COUNT: 0, ALL_SUM: 0.0}
            if before is None
            else {ALL_COUNT: before[COUNT].sum(), ALL_SUM: before["sum"].sum()}
        )
        running = (pl.col(name).cum_sum().shift(1, fill_value=0) + first for name, first in start.items())
        earlier = self._days_before(before, by_value).with_columns(pl.col(COUNT, "sum").fill_null(0))
        return earlier.join(totals.sort(DAY).with_columns(running), on=DAY).sort(DAY, VALUE)

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """The smoothed mean."""
        target = finite(pl.col(self.target))
        # In one batch the last event of each session is held out, and not in the sums.
        counted = (pl.col(DAY) == ONE_BATCH) & target.is_not_null() & ~is_last()
        own = {COUNT: pl.when(counted).then(1).otherwise(0), "sum": pl.when(counted).then(target).otherwise(0.0)}
        all_count, all_sum = state[ALL_COUNT] - own[COUNT], state[ALL_SUM] - own["sum"]
        count, total = state[COUNT] - own[COUNT], state["sum"] - own["sum"]
        overall = pl.when(all_count > 0).then(all_sum / all_count)
        weight = count + self.smoothing
        return pl.when(weight > 0).then((total + self.smoothing * overall) / weight).otherwise(overall)
