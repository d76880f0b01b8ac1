"""Encoders, one a file: they turn a column of events into ids or numbers a model can take.

An encoder named under `features` in a dataset is the class its file is named after. Its fields are its options. A chain such
as [log1p, standardise] applies several in order.

What an encoder learns is a small table of statistics that add up over days and over parts of a day. A day is encoded with
what the days before it taught, so nothing is ever fit on the day it is evaluated on; the very first day, which is never
evaluated on, uses its own numbers. Most encoders only name their statistics; the rest is done here, once.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from schemas.columns import DAY, VALUE
from schemas.errors import unknown

SEEN = "what is learnt from"  # no column of events is called so
LARGEST = 1e150  # its square is still a number
Expressions = dict[str, pl.Expr]
Kind = Literal["categorical", "continuous"]
Takes = Literal["anything", "numbers", "times", "dates", "text"]
Learns = Literal["nothing", "numbers", "by value"]
Adds = Literal["sum", "min", "max"]
ADD = {"sum": pl.Expr.sum, "min": pl.Expr.min, "max": pl.Expr.max}
RUN = {"sum": pl.Expr.cum_sum, "min": pl.Expr.cum_min, "max": pl.Expr.cum_max}


class Encoder(BaseModel):
    """One encoder. The default learns nothing and changes nothing.

    Expressions come in and go out: null in, null out. What is still null at the end of a chain of numbers becomes 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[Kind] = "continuous"
    """What comes out: ids (only at the end of a chain) or numbers."""
    takes: ClassVar[Takes] = "numbers"
    """What may come in."""
    learns: ClassVar[Learns] = "nothing"
    """Whether the statistics are single numbers, or numbers for every value of `key`."""
    adds_up: ClassVar[dict[str, Adds]] = {}
    """How statistics of parts become those of the whole, for those that are not sums."""
    timeless: ClassVar[bool] = False
    """True where what later days teach cannot change an earlier event's value, such as when an item was first seen."""

    def check(self, column: str, columns: pl.Schema) -> None:
        """Raise InputError where the options do not fit the columns events have; `column` is the feature's own."""

    def key(self, value: pl.Expr) -> pl.Expr:
        """What statistics are kept by, when they are kept by value."""
        return value

    def statistics(self, value: pl.Expr) -> Expressions:
        """What is learnt of some rows, as aggregates such as `value.sum()`; numbers that are not finite come as null."""
        return {}

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """The encoded value; `learnt` holds the statistics that a row's day may know, null where there are none."""
        return value

    def add_columns(self, events: pl.LazyFrame, value: pl.Expr, name: str) -> tuple[pl.LazyFrame, pl.Expr]:
        """Bring in what cannot be told from a row alone, such as a session's start; rows and their order stay."""
        return events, value

    def decode(self, value: pl.Expr, numbers: dict[str, float]) -> pl.Expr | None:
        """What was encoded, given the encoder's statistics; None where it cannot be told from the encoded value."""
        return None

    # What follows is the same for nearly all encoders.

    @property
    def keys(self) -> list[str]:
        """The columns that identify a row of the table to look statistics up in."""
        by_value = [VALUE] if self.learns == "by value" else []
        return by_value if self.timeless else [DAY, *by_value]

    def learn(self, rows: pl.LazyFrame, value: pl.Expr) -> pl.LazyFrame | None:
        """A plan for what rows teach, with the columns `keys` and the statistics; parts of it `merge`."""
        if self.learns == "nothing":
            return None
        # Computed once, before rows are grouped: expressions inside groups cost three times as much.
        rows = rows.with_columns((finite(value) if self.takes == "numbers" else value).alias(SEEN))
        seen = pl.col(SEEN)
        by = {DAY: pl.col(DAY)} | ({VALUE: self.key(seen)} if self.learns == "by value" else {})
        found = rows.group_by(by[name].alias(name) for name in self.keys).agg(**self.statistics(seen))
        return found.filter(pl.col(VALUE).is_not_null()) if VALUE in self.keys else found

    def merge(self, known: pl.DataFrame | None, learnt: pl.DataFrame) -> pl.DataFrame:
        """What is known after `learnt`: one row, or one row a value in order of value."""
        learnt = learnt.drop(DAY, strict=False)
        parts = learnt if known is None else pl.concat([known, learnt.select(known.columns)], how="vertical_relaxed")
        totals = self._totals(parts.columns)
        if self.learns == "by value":
            return parts.group_by(VALUE).agg(**totals).sort(VALUE)
        return parts.select(**totals)

    def table(self, known: pl.DataFrame | None, learnt: pl.DataFrame, merged: pl.DataFrame) -> pl.DataFrame:
        """What rows of the days in `learnt` are encoded with: a row for each of `keys`.

        `known` is what earlier days taught, `merged` what is known after all of these days.
        """
        if self.timeless:
            return merged
        return self._day_before(known, self._add_up(learnt, self.keys))

    def cardinality(self, merged: pl.DataFrame | None) -> int | None:
        """Categorical: ids are below this."""
        return None

    def scale(self, numbers: dict[str, float]) -> tuple[float, float]:
        """Mean and standard deviation the encoder subtracts and divides by, given its statistics."""
        return 0.0, 1.0

    def _totals(self, columns: list[str]) -> Expressions:
        return {name: ADD[self.adds_up.get(name, "sum")](pl.col(name)) for name in columns if name not in (DAY, VALUE)}

    def _add_up(self, learnt: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
        return learnt.group_by(keys).agg(**self._totals(learnt.columns)).sort(keys)

    def _day_before(self, known: pl.DataFrame | None, learnt: pl.DataFrame) -> pl.DataFrame:
        """For each day (and value): the running statistics of all earlier days."""
        names = [name for name in learnt.columns if name not in self.keys]
        parts = learnt
        if known is not None:
            known = known.with_columns(pl.lit(None, dtype=pl.Date).alias(DAY))
            parts = pl.concat([known.select(learnt.columns), learnt], how="vertical_relaxed")
        # A day without numbers has no minimum, and knows that of the days before it.
        running = {name: RUN[self.adds_up.get(name, "sum")](pl.col(name)).forward_fill().shift(1) for name in names}
        if self.learns == "by value":
            before = parts.with_columns(**{name: earlier.over(VALUE) for name, earlier in running.items()})
        else:
            before = parts.with_columns(**running)
            if known is None and parts.height:  # nothing is known before the first day: it goes by its own numbers
                before = before.with_columns(pl.coalesce(name, pl.lit(parts[name][0])) for name in names)
        return before.filter(pl.col(DAY).is_not_null())


def finite(value: pl.Expr) -> pl.Expr:
    """Numbers as Float64; null where they are no numbers, infinite, or so large that their squares would be."""
    number = value.cast(pl.Float64)
    return pl.when(number.abs() < LARGEST).then(number)


def require(column: str, columns: pl.Schema) -> None:
    """Raise InputError unless events have this column."""
    if column not in columns:
        raise unknown("column", column, columns)
