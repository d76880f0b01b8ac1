"""The plans that fit and transform all features of a dataset together, over rows of a CPU or of a GPU.

On a CPU values that are small integers are counted up, and looked up, in arrays, and large days are grouped one by one.
What several features look up by the same columns is joined once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from preprocessing.encoders import Expressions
from preprocessing.features.feature import FittedFeature
from preprocessing.frames import Rows, collect
from preprocessing.groups import Groups
from preprocessing.sessions import by_day
from schemas.columns import DAY, VALUE

LARGE_DAY = 5_000  # rows from which on a plan of its own costs less than it saves


def fit_plans(rows: Rows | pl.LazyFrame, features: Sequence[FittedFeature]) -> list[pl.LazyFrame]:
    """Rows by day -> of each feature, what `FittedFeature.partial_fit` says.

    Of a frame on a CPU, values that are small integers are counted in an array, and days are grouped one by one where they
    are large: that costs a third of grouping all rows by day and value, since groups stay in a processor's cache.
    """
    if not isinstance(rows, pl.DataFrame):
        return [feature.partial_fit(rows.lazy()) for feature in features]
    days = by_day(rows) if DAY in rows.columns else {}
    large = bool(days) and rows.height >= len(days) * LARGE_DAY
    plans = []
    for feature in features:
        encoder = feature.next_to_fit
        counted = feature.count_up(rows)
        if counted is not None:
            plans.append(counted.lazy())
        elif large and encoder and encoder.by_day and encoder.fits == "by value":
            plans.append(pl.concat([feature.partial_fit(part.lazy(), day) for day, part in days.items()]))
        else:
            plans.append(feature.partial_fit(rows.lazy()))
    return plans


def transform(rows: Rows | pl.LazyFrame, features: Sequence[FittedFeature], keep: Sequence[str]) -> pl.LazyFrame:
    """Rows -> a plan for the columns `keep` and one column a feature, as it is stored."""
    # A kept column must not shadow a feature of the same name.
    encoded: Expressions = {}
    plan, joined = _join_tables(rows.lazy(), features, on_cpu=isinstance(rows, pl.DataFrame))
    for feature in features:
        plan, encoded[feature.name] = feature.transform(plan, joined)
    kept = {name: pl.col(name) for name in keep if name not in encoded}
    return plan.select(**kept, **encoded)


def _join_tables(
    rows: pl.LazyFrame, features: Sequence[FittedFeature], *, on_cpu: bool
) -> tuple[pl.LazyFrame, set[str]]:
    """Rows -> rows with the columns of lookup tables, one join for all that are looked up by the same columns; which ones.

    `on_cpu`: what is looked up by small integers is found by its place in a table.
    """
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
        found = collect(whole)  # small tables are worked on by the CPU
        places = Groups.of([found[keys[0]]]) if on_cpu and len(by) == 1 else None
        if places is not None:
            rows = rows.with_columns(**_at_places(pl.col(by[0]), found.drop(keys), places))
        else:
            rows = rows.join(found.lazy(), left_on=list(by), right_on=keys, how="left", maintain_order="left")
    return rows, joined


def _at_places(key: pl.Expr, table: pl.DataFrame, groups: Groups) -> Expressions:
    """The columns of a table whose rows are groups of small integers: found by where they lie, at half the cost of a join."""
    ((_, low, width),) = groups.axes
    row = np.full(width, -1)
    row[groups.of_rows] = np.arange(table.height)
    by_place = table[pl.Series(row, dtype=pl.Int64).replace(-1, None)]
    number = key.to_physical().cast(pl.Int64, strict=False) - low
    place = pl.when(number.is_between(0, width - 1)).then(number).cast(pl.UInt32)
    return {name: pl.lit(by_place[name]).gather(place) for name in table.columns}
