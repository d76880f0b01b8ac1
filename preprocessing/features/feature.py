"""A feature of a dataset, compiled: a column and its encoders; and the plans that fit and transform it alone (all: `plans.py`).

    rows (kept events in order of session and time, with `day` and `session_index`)
      -> partial_fit   the statistics of its next encoder: `day`, `value` if by value, and what the encoder counts
      -> transform     the rows, and the encoded value of each

State is kept outside, by name (see `state.py`): what days and buckets of users give adds up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import numpy as np
import polars as pl

from preprocessing.encoders import Encoder, Expressions
from preprocessing.encoders.category import Category
from preprocessing.groups import Groups
from preprocessing.sessions import changed
from schemas.columns import DAY, VALUE

LARGEST_FLOAT32 = 3.4e38
_COMPUTED = "computed value"  # no column is called so: what is looked up by it is not found by a column


@dataclass(frozen=True)
class Feature:
    """A column and the encoders applied to it, in order."""

    name: str
    column: str
    encoders: tuple[Encoder, ...]
    per_item: bool
    """Whether the value belongs to the item, such as its category, not to the moment."""
    per: Literal["event", "session"] = "event"
    many: bool = False
    """Whether the column holds lists: each event has any number of values."""
    floats: bool = False
    """Whether it holds floats, of which NaN counts as null: no join finds it reliably."""

    @property
    def kind(self) -> Literal["categorical", "continuous"]:
        """What comes out of the last encoder."""
        return self.encoders[-1].kind

    def state_name(self, place: int) -> str:
        """The name of the state of the encoder at `place`, 0 first: "price.1"; empty where it fits nothing.

        Of a vocabulary it is the feature's own, or that of the vocabulary it shares.
        """
        encoder = self.encoders[place]
        if encoder.fits == "nothing":
            return ""
        if isinstance(encoder, Category):
            return encoder.vocabulary or self.name
        return f"{self.name}.{place}"


@dataclass(frozen=True)
class FittedFeature:
    """A feature and the lookup tables of its first encoders; those that follow are not fitted yet.

    A feature `price: [log1p, standardize]` starts with no table, and `next_to_fit` is standardize, at place 1, whose state is
    called "price.1"; log1p needs none. With its table, `tables` is (None, table) and nothing is left to fit.
    """

    feature: Feature
    tables: tuple[pl.DataFrame | None, ...] = ()
    """What `Encoder.lookup` gave, by place; None for an encoder that fits nothing."""

    @property
    def name(self) -> str:
        """The feature's name."""
        return self.feature.name

    @property
    def next_place(self) -> int:
        """Where the first encoder that has no table but needs one stands; past the end when all are fitted."""
        encoders = self.feature.encoders
        places = range(len(self.tables), len(encoders))
        return next((place for place in places if encoders[place].fits != "nothing"), len(encoders))

    @property
    def next_to_fit(self) -> Encoder | None:
        """The encoder at `next_place`; None when all are fitted."""
        encoders = self.feature.encoders
        return encoders[self.next_place] if self.next_place < len(encoders) else None

    @property
    def state_name(self) -> str:
        """The name of the state of `next_to_fit`; empty when all are fitted."""
        return self.feature.state_name(self.next_place) if self.next_to_fit else ""

    def with_table(self, table: pl.DataFrame) -> FittedFeature:
        """The same with the lookup table of `next_to_fit`."""
        skipped = [None] * (self.next_place - len(self.tables))
        return replace(self, tables=(*self.tables, *skipped, table))

    def partial_fit(self, rows: pl.LazyFrame, day: date | None = None) -> pl.LazyFrame:
        """Rows -> a plan for the statistics of `next_to_fit`: the columns `Encoder.keys`, and one a statistic.

        `day`: that of all rows, where the encoder counts by day and value.
        """
        encoder = self.next_to_fit
        assert encoder is not None
        if self.feature.many:
            rows = rows.select(DAY, self.feature.column).explode(self.feature.column, empty_as_null=True)
        rows, value = self.transform_fitted(rows)
        rows, value = encoder.add_columns(rows, value, f"{self.name}.{self.next_place}")
        return encoder.partial_fit(rows, value, day)

    def count_up(self, rows: pl.DataFrame) -> pl.DataFrame | None:
        """Rows -> the statistics of `partial_fit`, where the encoder can count up small integers; else None."""
        encoder, feature = self.next_to_fit, self.feature
        key = encoder.key(pl.col(feature.column)) if encoder and encoder.fits == "by value" else None
        if encoder is None or key is None or self.next_place or feature.many or not key.meta.is_column():
            return None
        by = {DAY: DAY, VALUE: key.meta.output_name()}
        groups = Groups.of([rows[by[name]] for name in encoder.keys])
        counted = encoder.count_up(groups, rows[feature.column]) if groups else None
        if groups is None or counted is None:
            return None
        (there,) = np.nonzero(np.bincount(groups.of_rows, minlength=groups.size))
        keys = [key.alias(name) for name, key in zip(encoder.keys, groups.keys(there), strict=True)]
        return pl.DataFrame([*keys, *(counted[name].gather(there).alias(name) for name in counted)])

    def transform_fitted(self, rows: pl.LazyFrame, joined: Collection[str] = ()) -> tuple[pl.LazyFrame, pl.Expr]:
        """Rows -> rows with helper columns, and the value that comes to `next_to_fit`, or out of the last encoder.

        `joined` are the prefixes of the lookup tables whose columns the rows have already.
        """
        value: pl.Expr = pl.col(self.feature.column)
        if self.feature.floats:
            value = pl.when(value.is_not_nan()).then(value)
        for place, encoder in enumerate(self.feature.encoders[: self.next_place]):
            prefix = f"{self.name}.{place}"
            table = self.tables[place] if place < len(self.tables) else None
            rows, value = encoder.add_columns(rows, value, prefix)
            state: Expressions = {}
            if table is not None:
                if prefix not in joined:
                    rows, state = look_up(rows, encoder.key(value), table, prefix)
                else:
                    state = _columns_of(table, prefix)
            value = encoder.transform(value, state)
        return rows, value

    def lookups(self) -> Iterator[tuple[tuple[str, ...], str, pl.DataFrame]]:
        """The lookup tables whose rows are found by columns of events as they are: these columns, the prefix, the table."""
        for place, (encoder, table) in enumerate(zip(self.feature.encoders, self.tables, strict=False)):
            if (
                table is None
                or self.feature.many
                or (DAY in table.columns and VALUE not in table.columns and table.height == 1)
            ):
                continue
            value = pl.col(self.feature.column if place == 0 and not self.feature.floats else _COMPUTED)
            key = encoder.key(value) if VALUE in table.columns else pl.col(DAY)
            if not key.meta.is_column() or (name := key.meta.output_name()) == _COMPUTED:
                continue
            by = {DAY: DAY, VALUE: name}
            yield tuple(by[column] for column in (DAY, VALUE) if column in table.columns), f"{self.name}.{place}", table

    def transform(self, rows: pl.LazyFrame, joined: Collection[str] = ()) -> tuple[pl.LazyFrame, pl.Expr]:
        """Rows -> rows with helper columns, and the encoded value, as it is stored; of a column of lists, lists.

        `joined` as in `transform_fitted`.
        """
        if not self.feature.many:
            rows, value = self.transform_fitted(rows, joined)
            if self.feature.kind == "continuous":  # which `as_stored` asks for twice
                rows, value = rows.with_columns(value.alias(f"{self.name} number")), pl.col(f"{self.name} number")
            return rows, as_stored(value, self.feature.kind)
        # No engine but the CPU's computes on lists: their elements become rows, and lists again.
        row, column, name = f"{self.name} row", self.feature.column, f"{self.name} list"
        rows = rows.with_row_index(row)
        elements, value = self.transform_fitted(rows.select(row, DAY, column).explode(column, empty_as_null=True))
        alone = changed(row) & (pl.col(row).shift(-1).ne_missing(pl.col(row)))
        elements = elements.filter(~(alone & pl.col(column).is_null())).select(row, value.alias(name))
        lists = elements.group_by(row, maintain_order=True).agg(pl.col(name))
        return rows.join(lists, on=row, how="left", maintain_order="left"), pl.col(name).fill_null([])


def _columns_of(table: pl.DataFrame, prefix: str) -> Expressions:
    return {name: pl.col(f"{prefix} {name}") for name in table.columns if name not in (DAY, VALUE)}


def as_stored(value: pl.Expr, kind: Literal["categorical", "continuous"]) -> pl.Expr:
    """Ids as Int32; numbers as Float32, with 0 for what is null, not finite or too large for one."""
    if kind == "categorical":
        return value.cast(pl.Int32)
    number = value.cast(pl.Float64)
    finite = pl.when(number.abs() <= LARGEST_FLOAT32).then(number).otherwise(0.0)
    return finite.cast(pl.Float32)


def look_up(rows: pl.LazyFrame, key: pl.Expr, table: pl.DataFrame, prefix: str) -> tuple[pl.LazyFrame, Expressions]:
    """Rows -> rows joined with the table by `day`, by `value` (which is `key`) or by both, and its columns by name.

    A table with `day`, `mean`, `std` gives {"mean": .., "std": ..}, null on days that it does not have.
    """
    by = [name for name in (DAY, VALUE) if name in table.columns]
    names = [name for name in table.columns if name not in by]
    if by == [DAY] and table.height == 1:  # one day: numbers, no join
        return rows, {name: pl.lit(table[name][0], dtype=table.schema[name]) for name in names}
    renamed = table.lazy().select(*(pl.col(name).alias(f"{prefix} {name}") for name in table.columns))
    left = {DAY: pl.col(DAY), VALUE: key}
    rows = rows.join(
        renamed,
        left_on=[left[name] for name in by],
        right_on=[f"{prefix} {name}" for name in by],
        how="left",
        maintain_order="left",
    )
    return rows, _columns_of(table, prefix)
