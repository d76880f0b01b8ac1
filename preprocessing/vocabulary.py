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

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from pyarrow import ArrowException

from schemas.columns import COUNT, DAY, FIRST_ID, ID, VALUE
from schemas.errors import InputError, reason

ADMITTED = "admitted"
BEFORE_ALL = date(1970, 1, 1)  # when values of a vocabulary that was taken over were admitted
NO_ID = 2**31 - 1  # after all ids
_BEFORE, _NEVER = -(2**31), 2**31 - 1  # days before and after all
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
    nothing = (pl.lit(None, dtype=_COLUMNS[name]).alias(name) for name in (ID, ADMITTED))
    rows = counts.lazy().select(DAY, VALUE, COUNT, *nothing)
    if vocabulary.height:
        before = _admitted(vocabulary, counts, min_count).select(pl.lit(None, dtype=pl.Date).alias(DAY), *_COLUMNS)
        rows = pl.concat([before, rows], how="vertical_relaxed")
    # Then neighbours: values with their days in order, each after its count before them, which has its id.
    value, count, id_, admitted, rank = _so_far(_in_order(rows, VALUE, DAY), min_count)
    order = np.lexsort((rank, admitted, id_))  # and then of value, as they are
    value, count, id_, admitted = value[order], count[order], id_[order], admitted[order]
    new = (id_ == NO_ID) & (admitted < _NEVER)
    id_ = np.where(new, np.cumsum(new) + highest(vocabulary, first_id), id_)
    has_id = (id_ < NO_ID) & (~new | (id_ < max_size)) if max_size else id_ < NO_ID
    table = pl.DataFrame({VALUE: value, COUNT: count, ID: id_, ADMITTED: admitted, "has id": has_id}).select(
        VALUE,
        COUNT,
        pl.when("has id").then(ID).cast(pl.Int32).alias(ID),
        pl.when("has id").then(ADMITTED).cast(pl.Int32).cast(pl.Date).alias(ADMITTED),
    )
    return table.sort(ID, VALUE, nulls_last=True) if max_size else table


def _so_far(rows: pl.DataFrame, min_count: int) -> tuple[pl.Series, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`day`, `value`, `count`, `id`, `admitted` in order of value and day -> of each value: itself, its count, its id or NO_ID,
    when it was admitted (else _NEVER), and how it ranks among those of that day.

    Days are numbers. A row without a day holds what came before all days.
    """
    first = rows.select(pl.col(VALUE).ne_missing(pl.col(VALUE).shift(1))).to_series().to_numpy(writable=True)
    first[:1] = True
    day, count = rows[DAY].to_physical().fill_null(_BEFORE).to_numpy(), rows[COUNT].to_numpy()
    (begins,) = np.nonzero(first)
    total = np.cumsum(count)
    total = total - np.repeat((total - count)[begins], np.diff(begins, append=len(count)))
    # Of each value and day the last row; a value's first row has its id, and its day is none then.
    (kept,) = np.nonzero(np.append(first[1:] | (day[1:] != day[:-1]), np.ones(min(1, len(day)), dtype=bool)))
    number = (np.cumsum(first) - 1)[kept]
    of_first = kept[np.flatnonzero(np.diff(number, prepend=-1))]
    id_ = rows[ID].fill_null(NO_ID).to_numpy()[of_first].astype(np.int64)
    admitted = rows[ADMITTED].to_physical().fill_null(_NEVER).to_numpy()[of_first].astype(np.int64)
    enough = (id_[number] == NO_ID) & (day[kept] != _BEFORE) & (total[kept] >= min_count)
    (reached,) = np.nonzero(enough)
    reached = reached[np.diff(number[reached], prepend=-1) != 0]  # from its first such day on a value has enough
    rank = np.zeros(len(begins), dtype=np.int64)
    admitted[number[reached]], rank[number[reached]] = day[kept][reached], -total[kept][reached]
    ends = np.append(begins[1:], len(count))[: len(begins)] - 1
    return rows[VALUE][begins], total[ends], id_, admitted, rank


def _in_order(rows: pl.LazyFrame, *keys: str) -> pl.DataFrame:
    """Rows in order of these keys, and then as they were: a sort a key, the last key first, costs half of one by several."""
    table = rows.collect(engine="in-memory")  # in a plan, the optimiser would make one sort of them
    for key in reversed(keys):
        table = table.sort(key, maintain_order=True)
    return table


def _admitted(vocabulary: pl.DataFrame, counts: pl.DataFrame, min_count: int) -> pl.LazyFrame:
    """The vocabulary; values that have an id are admitted on a day of `counts` if that is earlier and enough."""
    latest, first = vocabulary[ADMITTED].max(), counts[DAY].min()
    if latest is None or first is None or first >= latest:  # type: ignore[operator]
        return vocabulary.lazy()
    of_day = counts.lazy().group_by(VALUE, DAY).agg(pl.col(COUNT).sum()).filter(pl.col(COUNT) >= min_count)
    earlier = of_day.group_by(VALUE).agg(pl.col(DAY).min())
    joined = vocabulary.lazy().join(earlier, on=VALUE, how="left", maintain_order="left")
    return joined.with_columns(pl.when(pl.col(ID).is_not_null()).then(pl.min_horizontal(ADMITTED, DAY)).alias(ADMITTED))


def highest(vocabulary: pl.DataFrame, first_id: int = FIRST_ID) -> int:
    """The largest id given so far; the last reserved one when there is none."""
    return int(vocabulary[ID].max() or first_id - 1)  # type: ignore[arg-type]


def below(vocabulary: pl.DataFrame, cardinality: int) -> pl.DataFrame:
    """The vocabulary as it was when ids went up to `cardinality`: `id`, `value`, `count`, ascending by id."""
    return vocabulary[[ID, VALUE, COUNT]].head(int((vocabulary[ID] < cardinality).sum()))


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
