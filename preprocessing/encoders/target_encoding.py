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

from preprocessing.encoders import Encoder, Expressions, Learns, Takes, finite, require
from preprocessing.sessions import ONE_BATCH, is_last
from schemas.columns import COUNT, DAY, VALUE
from schemas.errors import InputError

ALL_COUNT, ALL_SUM = "all count", "all sum"


class TargetEncoding(Encoder):
    """Smoothed mean of `target` by value; the overall mean for what is new, null for null and on the first day."""

    takes: ClassVar[Takes] = "anything"
    learns: ClassVar[Learns] = "by value"

    target: str = Field(description="Column of numbers or booleans, such as whether the event was a purchase.")
    smoothing: float = Field(20.0, ge=0, description="How many events at the overall mean each value starts with.")

    def check(self, column: str, columns: pl.Schema) -> None:
        """Needs a target of numbers."""
        require(self.target, columns)
        if not (columns[self.target].is_numeric() or columns[self.target] == pl.Boolean):
            raise InputError(f"target {self.target!r} holds {columns[self.target]}; numbers or booleans have a mean.")

    def statistics(self, value: pl.Expr) -> Expressions:
        """What the mean is told from."""
        target = finite(pl.col(self.target))
        return {COUNT: target.count().cast(pl.Int64), "sum": target.sum()}

    def table(self, known: pl.DataFrame | None, learnt: pl.DataFrame, merged: pl.DataFrame) -> pl.DataFrame:
        """By day and value, the value's and all values' counts and sums of the days before (of the batch, if it is one)."""
        learnt = self._add_up(learnt, self.keys)
        totals = learnt.group_by(DAY).agg(pl.col(COUNT).sum().alias(ALL_COUNT), pl.col("sum").sum().alias(ALL_SUM))
        if (learnt[DAY] == ONE_BATCH).all():
            return learnt.join(totals, on=DAY)
        start = (
            {ALL_COUNT: 0, ALL_SUM: 0.0}
            if known is None
            else {ALL_COUNT: known[COUNT].sum(), ALL_SUM: known["sum"].sum()}
        )
        running = (pl.col(name).cum_sum().shift(1, fill_value=0) + first for name, first in start.items())
        before = self._day_before(known, learnt).with_columns(pl.col(COUNT, "sum").fill_null(0))
        return before.join(totals.sort(DAY).with_columns(running), on=DAY).sort(DAY, VALUE)

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """The smoothed mean."""
        target = finite(pl.col(self.target))
        # In one batch the last event of each session, which is held out, taught nothing.
        taught = (pl.col(DAY) == ONE_BATCH) & target.is_not_null() & ~is_last()
        own = {COUNT: pl.when(taught).then(1).otherwise(0), "sum": pl.when(taught).then(target).otherwise(0.0)}
        all_count, all_sum = learnt[ALL_COUNT] - own[COUNT], learnt[ALL_SUM] - own["sum"]
        count, total = learnt[COUNT] - own[COUNT], learnt["sum"] - own["sum"]
        overall = pl.when(all_count > 0).then(all_sum / all_count)
        weight = count + self.smoothing
        return pl.when(weight > 0).then((total + self.smoothing * overall) / weight).otherwise(overall)
