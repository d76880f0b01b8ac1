"""Id maps that only grow: 0 padding, 1 null, 2 unknown, from 3 the values in order of their admission.

A vocabulary is a table with the columns `value`, `count`, `id` and `admitted` (the day; both null while a value is too rare),
those with an id first, ascending. The value of id i is in row i - 3 (less what further ids are kept for unknown values):

    value  count  id    admitted
    b      5      3     2024-01-01
    a      2      4     2024-01-02
    c      1      null  null          too rare so far: encoded as 2
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from pyarrow import ArrowException

from schemas.columns import COUNT, DAY, FIRST_ID, ID, VALUE
from schemas.errors import InputError, reason

ADMITTED = "admitted"
BEFORE_ALL = date(1970, 1, 1)  # when values of a vocabulary that was taken over were admitted
_COLUMNS = {VALUE: None, COUNT: pl.Int64, ID: pl.Int32, ADMITTED: pl.Date}


def admit(
    vocabulary: pl.DataFrame | None,
    counts: pl.DataFrame,
    min_count: int,
    max_size: int | None,
    first_id: int = FIRST_ID,
) -> pl.DataFrame:
    """The vocabulary after the days of `counts` (`day`, `value`, `count`, in parts): later than those it is of, or a day of
    those that is done again.

    A value is admitted on the day on which its count so far reaches `min_count`. A day's new values come in order of that
    count, descending, then of value. So many days at once give what one day after the other gives. A value that has an id
    since a later day keeps it, and has it from the first of these days on that holds it `min_count` times.
    """
    if vocabulary is None:
        vocabulary = pl.DataFrame(schema={name: dtype or counts.schema[VALUE] for name, dtype in _COLUMNS.items()})
    before = vocabulary.lazy().select(pl.lit(None, dtype=pl.Date).alias(DAY), VALUE, COUNT)
    # One sort, then neighbours: values with their days in order, each after its count before them.
    rows = pl.concat([before, counts.lazy().select(DAY, VALUE, COUNT)], how="vertical_relaxed").sort(VALUE, DAY)
    value, day, total = pl.col(VALUE), pl.col(DAY), pl.col(COUNT).cum_sum()
    first, last = value.ne_missing(value.shift(1)), value.ne_missing(value.shift(-1))
    so_far = rows.with_columns(total - pl.when(first).then(total - pl.col(COUNT)).forward_fill())
    so_far = so_far.filter(last | day.ne_missing(day.shift(-1)))
    has_id = _admitted(vocabulary, counts, min_count)
    new_values = (
        so_far.filter(day.is_not_null() & (pl.col(COUNT) >= min_count))
        .filter(first)
        .join(has_id, on=VALUE, how="anti")
        .sort(DAY, COUNT, VALUE, descending=[False, True, False])
        .with_row_index(ID)
        .select(VALUE, pl.col(ID).cast(pl.Int32) + (highest(vocabulary, first_id) + 1), day.alias(ADMITTED))
    )
    if max_size:
        new_values = new_values.filter(pl.col(ID) < max_size)
    merged = so_far.filter(last).join(pl.concat([has_id, new_values], how="vertical_relaxed"), on=VALUE, how="left")
    return merged.select(list(_COLUMNS)).sort(ID, VALUE, nulls_last=True).collect(engine="in-memory")


def _admitted(vocabulary: pl.DataFrame, counts: pl.DataFrame, min_count: int) -> pl.LazyFrame:
    """The values that have an id, `value`, `id` and `admitted`: on a day of `counts` if that is earlier and enough."""
    has_id = vocabulary.lazy().drop_nulls(ID).select(VALUE, ID, ADMITTED)
    latest, first = vocabulary[ADMITTED].max(), counts[DAY].min()
    if latest is None or first is None or first >= latest:  # type: ignore[operator]
        return has_id
    of_day = counts.lazy().group_by(VALUE, DAY).agg(pl.col(COUNT).sum()).filter(pl.col(COUNT) >= min_count)
    earlier = of_day.group_by(VALUE).agg(pl.col(DAY).min())
    joined = has_id.join(earlier, on=VALUE, how="left", maintain_order="left")
    return joined.select(VALUE, ID, pl.min_horizontal(ADMITTED, DAY).alias(ADMITTED))


def highest(vocabulary: pl.DataFrame, first_id: int = FIRST_ID) -> int:
    """The largest id given so far; the last reserved one when there is none."""
    return int(vocabulary[ID].max() or first_id - 1)  # type: ignore[arg-type]


def below(vocabulary: pl.DataFrame, cardinality: int) -> pl.DataFrame:
    """The vocabulary as it was when ids went up to `cardinality`: `id`, `value`, `count`, ascending by id."""
    return vocabulary.filter(pl.col(ID) < cardinality).select(ID, VALUE, COUNT)


def recount(vocabulary: pl.DataFrame, counts: pl.DataFrame, before: date | None = None) -> pl.DataFrame:
    """The vocabulary with the counts of `counts` (`value`, `count`, in parts) and the same ids.

    Ids of values that were admitted on `before` or later are left out: their values are there as too rare, if counted. Ids
    have no gap, though: those below the largest that was admitted before stay, such as of later days than one done again.
    """
    summed = counts.lazy().group_by(VALUE).agg(pl.col(COUNT).sum())
    has_id = vocabulary.lazy().drop(COUNT).drop_nulls(ID)
    if before is not None:
        has_id = has_id.filter(pl.col(ID) <= pl.col(ID).filter(pl.col(ADMITTED) < before).max())
    joined = summed.join(has_id, on=VALUE, how="full", coalesce=True).with_columns(pl.col(COUNT).fill_null(0))
    return joined.select(list(_COLUMNS)).sort(ID, VALUE, nulls_last=True).collect(engine="in-memory")


def from_nvtabular(path: Path) -> pl.DataFrame:
    """The vocabulary in an NVTabular `unique.<column>.parquet`: its ids stay, all are admitted from the start.

    There ids are the pandas index, a range that begins with the first real id: 3, or 2 + num_buckets.

    Raises:
        InputError: for a file that cannot be read as Parquet or has another layout.
    """
    try:
        schema = pq.read_schema(path)
        table = pl.read_parquet(path, glob=False)
    except (OSError, ArrowException, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({reason(error)}).") from None
    index = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [None])[0]
    name = next((name.removesuffix("_size") for name in table.columns if name.endswith("_size")), "")
    if not (
        name in table.columns and isinstance(index, dict) and index.get("kind") == "range" and index.get("step") == 1
    ):
        raise InputError(
            f"{path}: not an NVTabular vocabulary. It needs columns NAME and NAME_size and a pandas RangeIndex of ids; "
            f"found {', '.join(table.columns)}. Give the file categories/unique.NAME.parquet of a fitted workflow."
        )
    if index["start"] < FIRST_ID:
        raise InputError(f"{path}: ids begin at {index['start']}, but 0, 1 and 2 are padding, null and unknown.")
    value = table[name]
    if value.dtype.is_float() and (value == value.floor()).all():  # what pandas makes of integers with gaps
        value = value.cast(pl.Int64)
    ids = pl.int_range(index["start"], index["start"] + table.height, dtype=pl.Int32, eager=True)
    counts = table[f"{name}_size"].cast(pl.Int64)
    dated = pl.Series([BEFORE_ALL]).new_from_index(0, table.height)
    return pl.DataFrame({VALUE: value, COUNT: counts, ID: ids, ADMITTED: dated})
