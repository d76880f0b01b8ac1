"""What a profile counts, over one bucket of kept rows: small tables that add up over buckets.

    day, column, kind, value or at, count

`kind` says what a row counts: events by `hour` of the day, sessions by `length`, a column's events by `value` (the most
frequent ones; `rest` is all others, `distinct` how many values there are), by `number`, by `month`, or those `missing` it.
Numbers fall into bins of equal width in their logarithm, a hundred for each power of ten, so no range need be known before.

Day and bin are packed into one integer: grouping by one key costs half of what grouping by two does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from preprocessing.encoders import finite
from preprocessing.encoders.category import Category
from preprocessing.features.feature import Feature
from preprocessing.frames import CPU, Held, Rows, Target, collect, collect_all
from preprocessing.groups import Groups, sum_up
from schemas.columns import COUNT, DAY, LENGTH, TIMESTAMP, VALUE
from schemas.dataset import Dataset

COLUMN, KIND, AT = "column", "kind", "at"
HOURS, LENGTHS = "hour of day", "session length"  # what is counted beside the columns
SCHEMA = pl.Schema(
    {DAY: pl.Date, COLUMN: pl.String, KIND: pl.String, VALUE: pl.String, AT: pl.Float64, COUNT: pl.Int64}
)
KEYS = [DAY, COLUMN, KIND, VALUE, AT]
MOST_VALUES = 200
QUARTER = 15 * 60 * 1_000_000  # of an hour, in microseconds: time zones begin on quarters
BINS_A_DECADE, ZERO_BELOW = 100, 40  # numbers smaller than 10 ** -40 count as 0
_DAYS_APART, _MIDDLE, _MISSING = 2**32, 2**31, -(2**30)
_KEY, _CODE = "key", "code"


def columns_of(features: list[Feature]) -> dict[str, Feature]:
    """The columns that features are made from, each with a feature that counts its values anyway, if there is one."""
    by_value = [feature for feature in features if isinstance(feature.encoders[0], Category)]
    return {feature.column: feature for feature in [*features, *reversed(by_value)]}


def is_fitted(feature: Feature, dataset: Dataset) -> bool:
    """Whether the feature's encoder has counted all kept values by day already: a split by day hides no rows from it."""
    return isinstance(feature.encoders[0], Category) and (dataset.split == "day" or feature.many)


def count(
    rows: Rows, lengths: pl.DataFrame, dataset: Dataset, features: list[Feature], target: Target = CPU
) -> pl.DataFrame:
    """The table of one bucket, but for values that encoders have counted; `lengths` has the days and lengths of sessions."""
    events, packed, plain = rows.lazy(), {}, {}
    packed[LENGTHS, "length"] = _pack(lengths, pl.col(LENGTH))
    if TIMESTAMP in rows.columns:
        packed[HOURS, "hour"] = _pack(rows, pl.col(TIMESTAMP).dt.epoch("us") // QUARTER)
    for column, feature in columns_of(features).items():
        dtype, value, by_value = rows.schema[column], pl.col(column), isinstance(feature.encoders[0], Category)
        if dtype.is_numeric() and not by_value:
            packed[column, "number"] = _pack(rows, _bin_of(finite(value)))
        elif dtype.is_temporal() and not by_value:
            if column != TIMESTAMP:
                packed[column, "month"] = _pack(rows, value.dt.year().cast(pl.Int64) * 12 + value.dt.month() - 1)
        else:
            if not is_fitted(feature, dataset):
                plain[column, "value"] = events.filter(value.is_not_null()).group_by(DAY, value.alias(VALUE))
            if isinstance(rows, Held) or rows[column].null_count():
                plain[column, "missing"] = events.filter(value.is_null()).group_by(DAY)
    plans = [*packed.values(), *(groups.agg(pl.len().cast(pl.Int64).alias(COUNT)) for groups in plain.values())]
    tables = collect_all(plans, target)
    unpacked = [_unpack(table, kind, dataset) for (_, kind), table in zip(packed, tables, strict=False)]
    named = zip([*packed, *plain], [*unpacked, *tables[len(packed) :]], strict=True)
    return pl.concat([_as_table(table, *name) for name, table in named])


def add_up(frames: Callable[[str], list[pl.LazyFrame]], dataset: Dataset, features: list[Feature]) -> pl.DataFrame:
    """The table of all buckets, with the most frequent values only; `frames` gives what tasks left, one frame a bucket."""
    parts = collect(pl.concat(frames("profile")))
    by_value = pl.col(KIND) == "value"
    tables = [parts.filter(~by_value).group_by(KEYS).agg(pl.col(COUNT).sum()).select(list(SCHEMA))]
    plain = parts.filter(by_value).partition_by(COLUMN, as_dict=True)
    values = {str(column): part for (column,), part in plain.items()}
    for column, feature in columns_of(features).items():
        if is_fitted(feature, dataset):
            values[column] = collect(pl.concat(frames(f"statistics-{feature.name}.0"), how="vertical_relaxed"))
    for column, table in values.items():
        whole = table if len(frames("profile")) == 1 else sum_up(table, [DAY, VALUE], [COUNT])
        tables += [_as_table(part, column, kind) for kind, part in _most(whole).items()]
    return pl.concat(tables).sort(KEYS)


def _pack(rows: Rows, code: pl.Expr) -> pl.LazyFrame:
    """Rows -> a plan for how many there are of each day and code; on a CPU codes near each other are counted up at once."""
    code = code.cast(pl.Int64).alias(_CODE)
    count = pl.len().cast(pl.Int64).alias(COUNT)
    if isinstance(rows, pl.DataFrame):
        found = collect(rows.lazy().select(DAY, code))
        if (groups := Groups.of(found.get_columns())) is not None:
            counts = np.bincount(groups.of_rows, minlength=groups.size)
            (there,) = np.nonzero(counts)
            day, codes = groups.keys(there)
            table = pl.DataFrame({DAY: day, _CODE: codes, COUNT: counts[there]})
            return table.lazy().select(_key(pl.col(_CODE)), COUNT)
    return rows.lazy().group_by(_key(code)).agg(count)


def _key(code: pl.Expr) -> pl.Expr:
    day = pl.col(DAY).cast(pl.Int32).cast(pl.Int64)
    return (day * _DAYS_APART + (code.fill_null(_MISSING) + _MIDDLE)).alias(_KEY)


def _bin_of(number: pl.Expr) -> pl.Expr:
    """Which hundredth of a power of ten is nearest; below 0 for negative numbers."""
    size = number.abs()
    exponent = size.log(10).clip(-ZERO_BELOW, ZERO_BELOW)
    place = ((exponent + ZERO_BELOW) * BINS_A_DECADE + 0.5).floor().cast(pl.Int64)
    return pl.when(number > 0).then(place).when(number < 0).then(-place).when(number == 0).then(0)


def _unpack(table: pl.DataFrame, kind: str, dataset: Dataset) -> pl.DataFrame:
    """Days, and what their bins stand for: hours of the local day, numbers, months since year 0, lengths."""
    day = pl.col(_KEY) // _DAYS_APART
    table = table.select(
        day.cast(pl.Int32).cast(pl.Date).alias(DAY), (pl.col(_KEY) - day * _DAYS_APART - _MIDDLE).alias(_CODE), COUNT
    )
    at: pl.Expr = pl.when(pl.col(_CODE) != _MISSING).then(_CODE)
    if kind == "hour":
        at = (at * QUARTER).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(dataset.time_zone).dt.hour()
    elif kind == "number":
        size = pl.lit(10.0).pow(at.abs() / BINS_A_DECADE - ZERO_BELOW).round_sig_figs(3)
        at = pl.when(at == 0).then(0.0).otherwise(size * at.sign())
    return table.group_by(DAY, at.cast(pl.Float64).alias(AT)).agg(pl.col(COUNT).sum())


def _most(values: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The most frequent values of each day, those that count the same in their order; the rest; how many there are."""
    last = pl.col(COUNT).top_k(MOST_VALUES).min().alias("last")  # a day's last place, without sorting all of its values
    totals = values.group_by(DAY).agg(pl.col(COUNT).sum(), pl.len().cast(pl.Int64).alias("distinct"), last)
    frequent = values.lazy().join(totals.lazy().select(DAY, "last"), on=DAY).filter(pl.col(COUNT) >= pl.col("last"))
    ranked = frequent.sort(DAY, COUNT, VALUE, descending=[False, True, False]).select(DAY, VALUE, COUNT)
    most = collect(ranked.group_by(DAY, maintain_order=True).head(MOST_VALUES))
    listed = most.group_by(DAY).agg(pl.col(COUNT).sum().alias("listed"))
    rest = totals.join(listed, on=DAY).select(DAY, pl.col(COUNT) - pl.col("listed")).filter(pl.col(COUNT) > 0)
    return {"value": most, "rest": rest, "distinct": totals.select(DAY, pl.col("distinct").alias(COUNT))}


def _as_table(counts: pl.DataFrame, column: str, kind: str) -> pl.DataFrame:
    in_bins = AT in counts.columns
    kinds = (
        pl.when(pl.col(AT).is_not_null()).then(pl.lit(kind)).otherwise(pl.lit("missing")) if in_bins else pl.lit(kind)
    )
    named = {COLUMN: pl.lit(column), KIND: kinds}
    empty = {name: pl.lit(None) for name in (VALUE, AT) if name not in counts.columns}
    return counts.with_columns(**named, **empty).select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
