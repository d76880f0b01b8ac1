"""A feature of a dataset, compiled: a column and its encoders; and the plans that fit and transform it.

    rows (kept events in order of session and time, with `day` and `session_index`)
      -> partial_fit   the statistics of its next encoder: `day`, `value` if by value, and what the encoder counts
      -> transform     the rows, and the encoded value of each

State is kept outside, by name (see `state.py`): what days and buckets of users give adds up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import polars as pl

from preprocessing.encoders import Encoder, Expressions
from preprocessing.encoders.category import Category
from preprocessing.frames import Rows, collect
from preprocessing.sessions import by_day, changed
from schemas.columns import DAY, VALUE

LARGEST_FLOAT32 = 3.4e38
LARGE_DAY = 5_000  # rows from which on a plan of its own costs less than it saves
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


def fit_plans(rows: Rows, features: Sequence[FittedFeature]) -> list[pl.LazyFrame]:
    """Rows by day -> of each feature, what `FittedFeature.partial_fit` says; on a CPU each day by itself where days are large.

    Grouping a day by value costs a third of grouping all rows by day and value: its groups stay in a processor's cache.
    """
    parts = by_day(rows) if isinstance(rows, pl.DataFrame) and DAY in rows.columns else {}
    small = not parts or rows.height < len(parts) * LARGE_DAY
    plans = []
    for feature in features:
        encoder = feature.next_to_fit
        if small or encoder is None or not encoder.by_day or encoder.fits != "by value":
            plans.append(feature.partial_fit(rows.lazy()))
        else:
            plans.append(pl.concat([feature.partial_fit(part.lazy(), day) for day, part in parts.items()]))
    return plans


def transform(rows: pl.LazyFrame, features: Sequence[FittedFeature], keep: Sequence[str]) -> pl.LazyFrame:
    """Rows -> a plan for the columns `keep` and one column a feature, as it is stored."""
    # A kept column must not shadow a feature of the same name.
    encoded: Expressions = {}
    rows, joined = _join_tables(rows, features)
    for feature in features:
        rows, encoded[feature.name] = feature.transform(rows, joined)
    kept = {name: pl.col(name) for name in keep if name not in encoded}
    return rows.select(**kept, **encoded)


def _join_tables(rows: pl.LazyFrame, features: Sequence[FittedFeature]) -> tuple[pl.LazyFrame, set[str]]:
    """Rows -> rows with the columns of lookup tables, one join for all that are looked up by the same columns; which ones."""
    tables: dict[tuple[str, ...], list[tuple[str, pl.DataFrame]]] = {}
    for feature in features:
        for by, prefix, table in feature.lookups():
            tables.setdefault(by, []).append((prefix, table))
    schema, joined = rows.collect_schema(), set()
    for by, of_key in tables.items():
        keys = [f"key of {column}" for column in by]
        whole: pl.LazyFrame | None = None
        for prefix, table in of_key:
            named = [column for column in (DAY, VALUE) if column in table.columns]
            renamed = {f"{prefix} {name}": pl.col(name) for name in table.columns if name not in named}
            # A column of a table that is all null tonight has no type, and finds nothing.
            by_key = {
                key: pl.col(name).cast(schema[column], strict=schema[column] != pl.Null)
                for key, name, column in zip(keys, named, by, strict=True)
            }
            part = table.lazy().select(**by_key, **renamed)
            whole = part if whole is None else whole.join(part, on=keys, how="full", coalesce=True)
            joined.add(prefix)
        assert whole is not None
        whole = collect(whole).lazy()  # small tables are worked on by the CPU
        rows = rows.join(whole, left_on=list(by), right_on=keys, how="left", maintain_order="left")
    return rows, joined


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
