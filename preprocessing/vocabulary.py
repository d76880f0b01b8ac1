"""Id maps: 0 padding, 1 null, 2 unknown, from 3 the values, the most frequent first, ties by value.

A vocabulary is a table with the columns `id`, `value` and `count`, ascending by id. It decodes: value = table[id - 3].
"""

from __future__ import annotations

import polars as pl

from schemas.columns import COUNT, FIRST_ID, ID, VALUE


def count_values(rows: pl.LazyFrame, value: pl.Expr) -> pl.LazyFrame:
    """How often each value occurs, nulls left out. Counts of parts add up to the counts of the whole."""
    return (
        rows.select(value.alias(VALUE)).filter(pl.col(VALUE).is_not_null()).group_by(VALUE).agg(pl.len().alias(COUNT))
    )


def number_values(counts: pl.LazyFrame, min_count: int = 1) -> pl.LazyFrame:
    """The vocabulary of the values counted at least `min_count` times."""
    return (
        counts.filter(pl.col(COUNT) >= min_count)
        .sort(COUNT, VALUE, descending=[True, False])
        .with_row_index(ID, offset=FIRST_ID)
        .select(pl.col(ID).cast(pl.Int32), VALUE, pl.col(COUNT).cast(pl.Int64))
    )
