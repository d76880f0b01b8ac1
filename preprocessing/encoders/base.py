"""Encoders, one a file: they turn a column of events into ids or numbers a model can take.

An encoder named under `features` in a dataset is the class its file is named after; its fields are its options. A list of
encoders such as [log1p, standardize] applies them in order.

What an encoder is fitted to is a small table of statistics that add up over days and over parts of a day. A day is
transformed with the statistics of the days before it, so nothing is ever fit on the day it is evaluated on; the very first
day, which is never evaluated on, uses its own numbers. Most encoders only name their statistics; the rest is done here.
"""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from preprocessing.groups import Groups, sum_up
from schemas.columns import DAY, VALUE
from schemas.errors import unknown

LARGEST = 1e150  # its square is still a number
Expressions = dict[str, pl.Expr]
Kind = Literal["categorical", "continuous"]
Takes = Literal["anything", "numbers", "times", "dates", "text"]
Fits = Literal["nothing", "numbers", "by value"]
Combine = Literal["sum", "min", "max"]
_RENAMED = {
    "adds_up": "combine", "decode": "inverse_transform", "encode": "transform", "learn": "partial_fit", "learns": "fits",
    "table": "lookup", "timeless": "by_day (of the opposite meaning)",
}  # fmt: skip
_INPUT = "value to fit"  # a helper column; no column of events is called so
_COMBINE = {"sum": pl.Expr.sum, "min": pl.Expr.min, "max": pl.Expr.max}
_RUNNING = {"sum": pl.Expr.cum_sum, "min": pl.Expr.cum_min, "max": pl.Expr.cum_max}


class Encoder(BaseModel):
    """One encoder. The default fits nothing and changes nothing.

    An author names `statistics` and says how `transform` makes a value from those of earlier days. Both get and give Polars
    expressions: null in, null out. What is still null at the end of a chain of numbers becomes 0. For example

        class Centre(Encoder):
            fits: ClassVar[Fits] = "numbers"

            def statistics(self, value):
                return {"count": value.count(), "sum": value.sum()}

            def transform(self, value, state):
                return value - state["sum"] / state["count"]

        day  value   statistics of the day   state: the days before   transformed
        1    2.0     count 2, sum 6          count 2, sum 6           -1.0          the first day: its own
        1    4.0                                                       1.0
        2    9.0     count 1, sum 9          count 2, sum 6            6.0
        3    5.0     count 1, sum 5          count 3, sum 15           0.0
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[Kind] = "continuous"
    """What comes out: ids (only at the end of a chain) or numbers."""
    takes: ClassVar[Takes] = "numbers"
    """What may come in."""
    fits: ClassVar[Fits] = "nothing"
    """Whether there is one row of statistics ("numbers"), or one for every value of `key` ("by value")."""
    combine: ClassVar[dict[str, Combine]] = {}
    """How statistics of parts and days become those of the whole, for those that are not sums."""
    by_day: ClassVar[bool] = True
    """Whether a day is kept from the statistics of later days. False where these cannot change an earlier event's value, as
    when an item was first seen: statistics then have no column `day`, and those of open sessions count too."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Refuse an encoder written for older names: its values would come out unchanged, without a word."""
        for older, current in _RENAMED.items():
            if older in vars(cls):
                raise TypeError(f"{cls.__module__}.{cls.__name__}: {older} is called {current} now; see README.md.")

    def check(self, column: str, columns: pl.Schema) -> None:
        """Raise InputError where the options do not fit the columns events have; `column` is the feature's own."""

    def key(self, value: pl.Expr) -> pl.Expr:
        """What statistics are kept by, when they are kept by value: the value itself, or another column."""
        return value

    def statistics(self, value: pl.Expr) -> Expressions:
        """Aggregates of the values of some rows by name, such as {"sum": value.sum()}.

        Numbers that are not finite come as null. {} for an encoder that fits nothing.
        """
        return {}

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """The encoded value of each row, from its value and the columns of `lookup` for its day (and key), by name.

        `state` is {} for an encoder that fits nothing; its values are null on rows for which there are no statistics.
        """
        return value

    def inverse_transform(self, encoded: pl.Series, state: pl.DataFrame | None) -> pl.Series | None:
        """Encoded values and the state they were made with -> raw values; None where encoded values do not say them."""
        return None

    def add_columns(self, events: pl.LazyFrame, value: pl.Expr, name: str) -> tuple[pl.LazyFrame, pl.Expr]:
        """Events and value -> events with helper columns whose names hold `name`, and the value made of them.

        For what a row alone does not say, such as its session's start. Rows and their order stay.
        """
        return events, value

    def cardinality(self, state: pl.DataFrame | None) -> int | None:
        """Ids are below this; None of numbers."""
        return None

    def scale(self, state: pl.DataFrame | None) -> tuple[float, float]:
        """The mean and the standard deviation that the state makes `transform` subtract and divide by."""
        return 0.0, 1.0

    def fitted_numbers(self, state: pl.DataFrame | None) -> dict[str, float | tuple[float, ...]]:
        """The numbers that `transform` uses on the day after the state, for those who encode events without the state.

        `{"mean": 2.0, "std": 1.0}`; {} for an encoder that fits nothing, or more than a few numbers.
        """
        return {}

    # What follows is the same for nearly all encoders.

    @property
    def keys(self) -> list[str]:
        """The columns that identify a row of statistics, and of the table to look them up in."""
        by_value = [VALUE] if self.fits == "by value" else []
        return [DAY, *by_value] if self.by_day else by_value

    def partial_fit(self, rows: pl.LazyFrame, value: pl.Expr, day: date | None = None) -> pl.LazyFrame:
        """Rows -> a plan for their statistics: the columns `keys` and one for each of `statistics`, in no order.

        With `day`, which is that of all rows, they are grouped by value alone.
        """
        assert self.fits != "nothing"
        # Computed once, before rows are grouped: expressions inside groups cost three times as much. And before `finite`, which
        # asks for it twice.
        rows, fitted_to = rows.with_columns(value.alias(_INPUT)), pl.col(_INPUT)
        if self.takes == "numbers":
            rows = rows.with_columns(finite(fitted_to).alias(_INPUT))
        by = {DAY: pl.col(DAY)} | ({VALUE: self.key(fitted_to)} if self.fits == "by value" else {})
        keys = [name for name in self.keys if name != DAY or day is None]
        statistics = rows.group_by(by[name].alias(name) for name in keys).agg(**self.statistics(fitted_to))
        if VALUE in keys:
            statistics = statistics.filter(pl.col(VALUE).is_not_null())
        return statistics if day is None else statistics.select(pl.lit(day).alias(DAY), pl.all())

    def count_up(self, groups: Groups, values: pl.Series) -> dict[str, pl.Series] | None:
        """Groups of rows by `keys`, and the rows' values -> the `statistics` of each group, by number; None: only as a plan."""
        return None

    def merge(self, state: pl.DataFrame | None, statistics: pl.DataFrame) -> pl.DataFrame:
        """The state after these statistics, in parts: `value`, if by value, and each statistic, without days.

        One row, or one row a value in order of value: day 1 count 2, sum 6 and day 2 count 1, sum 9 -> count 3, sum 15.
        """
        statistics = statistics.drop(DAY, strict=False)
        parts = [statistics] if state is None else [state, statistics.select(state.columns)]
        together = pl.concat(parts, how="vertical_relaxed")
        totals = self._totals(together.columns)
        if self.fits == "by value":
            return together.group_by(VALUE).agg(**totals).sort(VALUE)
        return together.select(**totals)

    def lookup(self, before: pl.DataFrame | None, statistics: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
        """The table that rows of the days in `statistics` are transformed with: a row for each of `keys`.

        `before` is the state before all of these days (None: there is none), `after` the one after them. A day's row holds
        the statistics of all days before it: state count 2, sum 6 and day 2 count 1, sum 9 -> day 2 count 2, sum 6.
        """
        if not self.by_day:
            return after
        return self._days_before(before, self.sum_parts(statistics))

    def sum_parts(self, statistics: pl.DataFrame) -> pl.DataFrame:
        """Statistics in parts -> one row for each of `keys`, in their order."""
        names = [name for name in statistics.columns if name not in self.keys]
        sums = all(self.combine.get(name, "sum") == "sum" for name in names)
        if sums and all(statistics.schema[name] == pl.Int64 and not statistics[name].null_count() for name in names):
            return sum_up(statistics, self.keys, names)
        return statistics.group_by(self.keys).agg(**self._totals(statistics.columns)).sort(self.keys)

    def _totals(self, columns: list[str]) -> Expressions:
        return {
            name: _COMBINE[self.combine.get(name, "sum")](pl.col(name)) for name in columns if name not in (DAY, VALUE)
        }

    def _days_before(self, before: pl.DataFrame | None, statistics: pl.DataFrame) -> pl.DataFrame:
        """For each day (and value) of `statistics`, which are in order: the running statistics of all earlier days."""
        names = [name for name in statistics.columns if name not in self.keys]
        parts = statistics
        if before is not None:
            undated = before.with_columns(pl.lit(None, dtype=pl.Date).alias(DAY)).select(statistics.columns)
            parts = pl.concat([undated, statistics], how="vertical_relaxed")
        # A day without numbers has no minimum: those of the days before it go on.
        running = {
            name: _RUNNING[self.combine.get(name, "sum")](pl.col(name)).forward_fill().shift(1) for name in names
        }
        if self.fits == "by value":
            earlier = parts.with_columns(**{name: number.over(VALUE) for name, number in running.items()})
        else:
            earlier = parts.with_columns(**running)
            if before is None and parts.height:  # nothing comes before the first day: it goes by its own numbers
                earlier = earlier.with_columns(pl.coalesce(name, pl.lit(parts[name][0])) for name in names)
        return earlier.filter(pl.col(DAY).is_not_null())


def name_of(encoder: Encoder) -> str:
    """The encoder's name in YAML: that of its file."""
    return type(encoder).__module__.rpartition(".")[2]


def finite(value: pl.Expr) -> pl.Expr:
    """Numbers as Float64; null where they are no numbers, infinite, or so large that their squares would be."""
    number = value.cast(pl.Float64)
    return pl.when(number.abs() < LARGEST).then(number)


def require(column: str, columns: pl.Schema) -> None:
    """Raise InputError unless events have this column."""
    if column not in columns:
        raise unknown("column", column, columns)
