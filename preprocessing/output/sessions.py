"""Sessions: encoded rows grouped into one row a session, numbered, written as one Parquet file a day and bucket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.features.feature import Feature
from preprocessing.frames import CPU, Rows, Target, collect_all
from preprocessing.sessions import ONE_BATCH, SESSION_INDEX, changed, is_last
from preprocessing.source.values import TIME
from schemas.columns import (
    DAY,
    END,
    LENGTH,
    SESSION_ID,
    START,
    TIMESTAMP,
    UNDATED,
    USER_ID,
)
from schemas.dataset import Dataset

NUM_SESSIONS = "sessions"
PLACE, BEGINS = "place of event", "begins or ends a session"  # no column of events is called so
SESSIONS_A_DAY = 1_000_000_000  # sessions are numbered from their day's number times this


def kept_columns(dataset: Dataset, columns: list[str]) -> list[str]:
    """The columns of rows that sessions are written with, beside their features."""
    labels = (label.column for label in dataset.labels)
    wanted = (SESSION_INDEX, DAY, END, SESSION_ID, USER_ID, TIMESTAMP, *labels)
    return [name for name in wanted if name in columns]


def group(encoded: Rows, dataset: Dataset, features: list[Feature], target: Target = CPU) -> pa.Table:
    """Encoded rows by day, session and time -> one row a session: day, who, when it began and ended, how long; a list for
    every feature and label per event.

    Of a feature per session it is the first event's value, which is known when the session starts: the last event is the one
    to be predicted. Of a label per session, which is predicted itself, it is the last event's.
    From a GPU come the values of lists as they are, and one row a session of all else. Lists are made here, from where each
    begins, by every engine: a column of values is not moved for it.
    """
    given = [SESSION_ID] if dataset.sessions.rule == "given" else []
    context = [feature.name for feature in features if feature.per == "session"]
    labels = [label.column for label in dataset.labels if label.per == "session"]
    lists = [feature.name for feature in features if feature.per == "event"]
    lists += [label.column for label in dataset.labels if label.per == "event"]
    rows = encoded.lazy()
    begins = rows.with_row_index(PLACE).with_columns(changed(SESSION_INDEX).alias(BEGINS)).filter(BEGINS)
    plans = [
        begins.select(pl.col(PLACE).cast(pl.Int32), DAY, *given, USER_ID, *_start(dataset), END, *context),
        rows.select(lists),
    ]
    if labels:
        plans.append(rows.with_columns(is_last().alias(BEGINS)).filter(BEGINS).select(labels))
    first, values, *last = collect_all(plans, target)
    ends = pl.Series([len(values)], dtype=pl.Int32)
    offsets = pl.concat([first[PLACE], ends]) if len(values) else pl.Series([0], dtype=pl.Int32)
    lengths = (offsets[1:] - offsets[:-1]).alias(LENGTH)
    first = first.drop(PLACE)
    place = first.columns.index(END) + 1
    table = first[:, :place].with_columns(lengths).hstack(first[:, place:])
    for frame in last:
        table = table.hstack(frame)
    return _with_lists(table.to_arrow(), values, offsets)


def _with_lists(table: pa.Table, values: pl.DataFrame, offsets: pl.Series) -> pa.Table:
    """A row a session -> the same with a list of each column of values, from one offset to the next."""
    for name in values.columns:
        column = pa.ListArray.from_arrays(offsets.to_arrow(), values[name].rechunk().to_arrow())
        table = table.append_column(name, column)
    return table


def _start(dataset: Dataset) -> list[pl.Expr]:
    dated = TIMESTAMP in dataset.events.columns
    return [(pl.col(TIMESTAMP) if dated else pl.lit(None, dtype=TIME)).alias(START)]


def count_sessions(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Kept rows, by session -> how many sessions each day has: `day`, `sessions`."""
    starts = rows.filter(changed(SESSION_INDEX))
    return starts.group_by(DAY).agg(pl.len().cast(pl.Int64).alias(NUM_SESSIONS))


@contextmanager
def writing(
    sessions: pa.Table, earlier: list[pl.DataFrame], dataset: Dataset, folder: Path, bucket: int
) -> Iterator[None]:
    """Write the sessions of one bucket, which come in order of their day, as `<folder>/<day>/<bucket>.parquet`.

    Files are written while the block runs, and whole when it ends well.

    `earlier` are the counts of the buckets before this one. Sessions without a given id are numbered day by day, in order of
    user and start however many buckets there are: a bucket holds users that follow each other.
    """
    before: dict[date, int] = {}
    for counts in earlier:
        for day, number in counts.iter_rows():
            before[day] = before.get(day, 0) + number
    days = pl.DataFrame(sessions.select([DAY]))  # of a column alone, Polars would import pyarrow.compute
    sessions, place = sessions.drop_columns([DAY]), 0
    parts: dict[Path, pa.Table] = {}
    for day, number in days.group_by(DAY, maintain_order=True).len().iter_rows():
        part = sessions.slice(place, number)
        place += number
        if dataset.sessions.rule != "given":
            first = (day - ONE_BATCH).days * SESSIONS_A_DAY + 1 + before.get(day, 0)
            numbers = pl.int_range(first, first + number, eager=True)  # pyarrow would import pandas for one of NumPy's
            part = part.add_column(0, SESSION_ID, numbers.to_arrow())
        parts[folder / name_of(day) / f"{bucket:05}.parquet"] = part
    # Packing is the most of a GPU's encoding, and pyarrow packs a file in one thread.
    with ThreadPoolExecutor(pl.thread_pool_size()) as threads:
        written = threads.map(_write, parts.values(), parts)
        yield
        list(written)


def _write(table: pa.Table, file: Path) -> None:
    """Without dictionaries, which lists of ids hardly repeat in: a third less work for files of the same size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, compression="zstd", compression_level=1, use_dictionary=False)


def name_of(day: date) -> str:
    """How a day is called in folders and facts."""
    return UNDATED if day == ONE_BATCH else str(day)
