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
    events, codes, plain = rows.lazy(), {}, {}
    if TIMESTAMP in rows.columns:
        codes[HOURS, "hour"] = pl.col(TIMESTAMP).dt.epoch("us") // QUARTER
    for column, feature in columns_of(features).items():
        dtype, value, by_value = rows.schema[column], pl.col(column), isinstance(feature.encoders[0], Category)
        if dtype.is_numeric() and not by_value:
            codes[column, "number"] = _bin_of(finite(value))
        elif dtype.is_temporal() and not by_value:
            if column != TIMESTAMP:
                codes[column, "month"] = value.dt.year().cast(pl.Int64) * 12 + value.dt.month() - 1
        else:
            if not is_fitted(feature, dataset):
                plain[column, "value"] = events.filter(value.is_not_null()).group_by(DAY, value.alias(VALUE))
            if isinstance(rows, Held) or rows[column].null_count():
                plain[column, "missing"] = events.filter(value.is_null()).group_by(DAY)
    packed = {(LENGTHS, "length"): _pack(lengths, [pl.col(LENGTH)])[0]}
    packed |= dict(zip(codes, _pack(rows, list(codes.values())), strict=True))
    plans = [*packed.values(), *(groups.agg(pl.len().cast(pl.Int64).alias(COUNT)) for groups in plain.values())]
    tables = collect_all(plans, target)
    unpacked = _unpack(dict(zip(packed, tables, strict=False)), dataset)
    return pl.concat(
        [unpacked, *(_as_table(table, *name) for name, table in zip(plain, tables[len(packed) :], strict=True))]
    )


def add_up(frames: Callable[[str], list[pl.LazyFrame]], dataset: Dataset, features: list[Feature]) -> pl.DataFrame:
    """The table of all buckets, with the most frequent values only; `frames` gives what tasks left, one frame a bucket."""
    buckets = [collect(frame) for frame in frames("profile")]
    parts = pl.concat(buckets)
    is_value = parts[KIND] == "value"
    tables, values = [parts], dict[str, pl.DataFrame]()
    if is_value.any():
        tables = [parts.filter(~is_value)]
        for (column,), part in parts.filter(is_value).partition_by(COLUMN, as_dict=True).items():
            values[str(column)] = part
    if len(buckets) > 1:
        tables = [table.group_by(KEYS).agg(pl.col(COUNT).sum()).select(list(SCHEMA)) for table in tables]
    for column, feature in columns_of(features).items():
        if is_fitted(feature, dataset):
            values[column] = pl.concat(
                [collect(frame) for frame in frames(f"statistics-{feature.name}.0")], how="vertical_relaxed"
            )
    if len(buckets) > 1:
        values = {column: sum_up(table, [DAY, VALUE], [COUNT]) for column, table in values.items()}
    return pl.concat([*tables, _most(values)]).sort(KEYS)


def _pack(rows: Rows, codes: list[pl.Expr]) -> list[pl.LazyFrame]:
    """Rows -> of each code, a plan for how many there are of each day and code, packed into one key; on a CPU codes near each
    other are counted up at once.
    """
    count = pl.len().cast(pl.Int64).alias(COUNT)
    if not isinstance(rows, pl.DataFrame):
        return [rows.lazy().group_by(_key(code.cast(pl.Int64))).agg(count) for code in codes]
    named = [code.cast(pl.Int64).alias(f"{_CODE} {number}") for number, code in enumerate(codes)]
    day, *columns = collect(rows.lazy().select(DAY, *named)).get_columns()
    tables = []
    for column in columns:
        if (groups := Groups.of([day, column])) is None:
            table = pl.LazyFrame([day, column]).group_by(_key(pl.col(column.name))).agg(count)
        else:
            counts = np.bincount(groups.of_rows, minlength=groups.size)
            (there,) = np.nonzero(counts)
            days, found = groups.keys(there)
            key = days.to_physical().cast(pl.Int64) * _DAYS_APART + (found + _MIDDLE)
            table = pl.LazyFrame({_KEY: key, COUNT: counts[there]})
        tables.append(table)
    return tables


def _key(code: pl.Expr) -> pl.Expr:
    day = pl.col(DAY).cast(pl.Int32).cast(pl.Int64)
    return (day * _DAYS_APART + (code.fill_null(_MISSING) + _MIDDLE)).alias(_KEY)


def _bin_of(number: pl.Expr) -> pl.Expr:
    """Which hundredth of a power of ten is nearest; below 0 for negative numbers."""
    size = number.abs()
    exponent = size.log(10).clip(-ZERO_BELOW, ZERO_BELOW)
    place = ((exponent + ZERO_BELOW) * BINS_A_DECADE + 0.5).floor().cast(pl.Int64)
    return pl.when(number > 0).then(place).when(number < 0).then(-place).when(number == 0).then(0)


def _unpack(tables: dict[tuple[str, str], pl.DataFrame], dataset: Dataset) -> pl.DataFrame:
    """By column and kind, counts of packed days and codes -> the table, with what codes stand for: hours of the local day,
    numbers, months since year 0, lengths.
    """
    names = pl.DataFrame({COLUMN: [column for column, _ in tables], KIND: [kind for _, kind in tables]})
    place = np.repeat(np.arange(len(tables)), [table.height for table in tables.values()])
    counted = names[place].hstack(pl.concat(tables.values()))
    day = pl.col(_KEY) // _DAYS_APART
    code = pl.col(_KEY) - day * _DAYS_APART - _MIDDLE
    days = counted.lazy().with_columns(day.cast(pl.Int32).cast(pl.Date).alias(DAY), code.alias(_CODE))
    there, kind = pl.col(_CODE) != _MISSING, pl.col(KIND)

    def of_kind(name: str) -> pl.Expr:
        return pl.when(there & (kind == name)).then(_CODE)

    hour = (of_kind("hour") * QUARTER).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(dataset.time_zone).dt.hour()
    bins = of_kind("number")
    size = pl.lit(10.0).pow(bins.abs() / BINS_A_DECADE - ZERO_BELOW).round_sig_figs(3)
    number = pl.when(bins == 0).then(0.0).otherwise(size * bins.sign())
    at = (
        pl.when(kind == "hour")
        .then(hour.cast(pl.Float64))
        .when(kind == "number")
        .then(number)
        .otherwise(pl.when(there).then(_CODE).cast(pl.Float64))
    )
    named = pl.when(there).then(kind).otherwise(pl.lit("missing"))
    summed = days.group_by(DAY, COLUMN, named.alias(KIND), at.alias(AT)).agg(pl.col(COUNT).sum())
    return collect(summed.select(DAY, COLUMN, KIND, pl.lit(None, dtype=pl.String).alias(VALUE), AT, COUNT))


def _most(values: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """By column, counts of values -> the table: the most frequent values of each day, the rest, how many there are."""
    names, kinds, parts = list[str](), list[str](), list[tuple[pl.Series, pl.Series, pl.Series]]()
    for column, counted in values.items():
        if counted.is_empty():
            continue
        most, rest, distinct = _most_of(counted)
        of_column = {"value": most, "rest": rest, "distinct": distinct}
        names += [column] * sum(table.height for table in of_column.values())
        for kind, table in of_column.items():
            kinds += [kind] * table.height
            value = (
                table[VALUE].cast(pl.String)
                if kind == "value"
                else pl.Series(VALUE, [None], pl.String).new_from_index(0, table.height)
            )
            parts.append((table[DAY], value, table[COUNT]))
    if not parts:
        return pl.DataFrame(schema=SCHEMA)
    day, value, count = (pl.concat(series) for series in zip(*parts, strict=True))
    at = pl.repeat(None, len(names), dtype=pl.Float64, eager=True)
    return pl.DataFrame({DAY: day, COLUMN: names, KIND: kinds, VALUE: value, AT: at, COUNT: count}, schema=SCHEMA)


def _most_of(values: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Counts of the values of one column -> the most frequent values of each day, of those that count the same the first; of
    how many rows the rest is; how many values there are.
    """
    day, count = values[DAY].to_physical().to_numpy(), values[COUNT].to_numpy()
    if (day[1:] < day[:-1]).any():
        order = np.argsort(day, kind="stable")
        values, day, count = values[order], day[order], count[order]
    (first,) = np.nonzero(np.diff(day, prepend=-(2**31)))
    num = np.diff(first, append=len(day))
    frequent = np.ones(len(day), dtype=bool)
    for start, size in zip(first[num > MOST_VALUES], num[num > MOST_VALUES], strict=True):
        of_day = count[start : start + size]
        frequent[start : start + size] = of_day >= np.partition(of_day, size - MOST_VALUES)[size - MOST_VALUES]
    most = (values if frequent.all() else values[np.flatnonzero(frequent)])[[DAY, VALUE, COUNT]]
    if np.add.reduceat(frequent.astype(np.int64), first).max() > MOST_VALUES:  # the last of a day's count the same
        ranked = most.lazy().sort(DAY, COUNT, VALUE, descending=[False, True, False])
        most = collect(ranked.group_by(DAY, maintain_order=True).head(MOST_VALUES))
    listed = np.zeros(len(first), dtype=np.int64)
    np.add.at(listed, np.searchsorted(day[first], most[DAY].to_physical().to_numpy()), most[COUNT].to_numpy())
    rest = np.add.reduceat(count, first) - listed
    days, there = values[DAY][first], np.flatnonzero(rest > 0)
    return most, pl.DataFrame({DAY: days[there], COUNT: rest[there]}), pl.DataFrame({DAY: days, COUNT: num})


def _as_table(counts: pl.DataFrame, column: str, kind: str) -> pl.DataFrame:
    empty = {name: pl.lit(None) for name in (VALUE, AT) if name not in counts.columns}
    named = counts.with_columns(pl.lit(column).alias(COLUMN), pl.lit(kind).alias(KIND), **empty)
    return named.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
