"""Sessions: encoded rows grouped into one row a session, numbered, written as one Parquet file a day and bucket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.features.feature import Feature
from preprocessing.frames import CPU, Rows, Target, collect, collect_and_keep, to_host
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

NUM_SESSIONS, NUM_USERS = "sessions", "users"
PLACE, BEGINS = "place of event", "begins or ends a session"  # no column of events is called so
SESSIONS_A_DAY = 1_000_000_000  # sessions are numbered from their day's number times this


def kept_columns(dataset: Dataset, columns: list[str]) -> list[str]:
    """The columns of rows that sessions are written with, beside their features."""
    labels = (label.column for label in dataset.labels)
    wanted = (SESSION_INDEX, DAY, END, SESSION_ID, USER_ID, TIMESTAMP, *labels)
    return [name for name in wanted if name in columns]


@dataclass(frozen=True)
class Sessions:
    """Sessions of one bucket, in order of their day."""

    table: pl.DataFrame
    """A row a session: day, who, when it began and ended, how long, and what it has one of."""
    values: Rows
    """The values of what it has many of, session after session; on a GPU, they are still there."""
    offsets: pl.Series
    """Where the values of each session begin, and where those of the last one end."""


def group(encoded: Rows, dataset: Dataset, features: list[Feature], target: Target = CPU) -> Sessions:
    """Encoded rows by day, session and time -> one row a session: day, who, when it began and ended, how long; and the values
    of the lists for every feature and label per event.

    Of a feature per session it is the first event's value, which is known when the session starts: the last event is the one
    to be predicted. Of a label per session, which is predicted itself, it is the last event's.
    """
    given = [SESSION_ID] if dataset.sessions.rule == "given" else []
    context = [feature.name for feature in features if feature.per == "session"]
    labels = [label.column for label in dataset.labels if label.per == "session"]
    lists = [feature.name for feature in features if feature.per == "event"]
    lists += [label.column for label in dataset.labels if label.per == "event"]
    rows = encoded.lazy()
    begins = rows.with_row_index(PLACE).with_columns(changed(SESSION_INDEX).alias(BEGINS)).filter(BEGINS)
    plans = [begins.select(pl.col(PLACE).cast(pl.Int32), DAY, *given, USER_ID, *_start(dataset), END, *context)]
    if labels:
        plans.append(rows.with_columns(is_last().alias(BEGINS)).filter(BEGINS).select(labels))
    (first, *last), values = collect_and_keep(plans, rows.select(lists), target)
    offsets = pl.concat([first[PLACE], pl.Series([encoded.height], dtype=pl.Int32)])
    lengths = (offsets[1:] - offsets[:-1]).alias(LENGTH)
    place = first.columns.index(END)
    table = first[:, 1 : place + 1].with_columns(lengths).hstack(first[:, place + 1 :])
    for frame in last:
        table = table.hstack(frame)
    return Sessions(table, values, offsets)


def with_lists(sessions: Sessions) -> pa.Table:
    """The rows with their lists, which are made from where each begins: a column of values is not moved for it."""
    table, values, offsets = sessions.table.to_arrow(), to_host(sessions.values), sessions.offsets.to_arrow()
    for name in values.columns:
        column = pa.ListArray.from_arrays(offsets, values[name].rechunk().to_arrow())
        table = table.append_column(name, column)
    return table


def _start(dataset: Dataset) -> list[pl.Expr]:
    dated = TIMESTAMP in dataset.events.columns
    return [(pl.col(TIMESTAMP) if dated else pl.lit(None, dtype=TIME)).alias(START)]


def count_sessions(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Kept rows, by session -> how many sessions each day has: `day`, `sessions`."""
    starts = rows.filter(changed(SESSION_INDEX))
    return starts.group_by(DAY).agg(pl.len().cast(pl.Int64).alias(NUM_SESSIONS))


def count_users(sessions: Sessions) -> pl.DataFrame:
    """How many sessions each day has, and of how many users: `day`, `sessions`, `users`, in order of the day."""
    counts = (pl.len().cast(pl.Int64).alias(NUM_SESSIONS), pl.col(USER_ID).n_unique().cast(pl.Int64).alias(NUM_USERS))
    return collect(sessions.table.lazy().group_by(DAY).agg(counts).sort(DAY))


@contextmanager
def writing(
    sessions: Sessions, earlier: list[pl.DataFrame], dataset: Dataset, folder: Path, bucket: int
) -> Iterator[None]:
    """Write the sessions of one bucket as `<folder>/<day>/<bucket>.parquet`.

    Files are written while the block runs, and whole when it ends well.

    `earlier` are the counts of the buckets before this one. Sessions without a given id are numbered day by day, in order of
    user and start however many buckets there are: a bucket holds users that follow each other.
    """
    before: dict[date, int] = {}
    for counts in earlier:
        for day, number in counts.iter_rows():
            before[day] = before.get(day, 0) + number
    files, place, numbers = list[tuple[Path, int, int]](), 0, list[pl.Series]()
    for day, number in sessions.table.group_by(DAY, maintain_order=True).len().iter_rows():
        file = folder / name_of(day) / f"{bucket:05}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        files.append((file, place, number))
        place += number
        first = (day - ONE_BATCH).days * SESSIONS_A_DAY + 1 + before.get(day, 0)
        numbers.append(pl.int_range(first, first + number, eager=True))
    table = sessions.table.drop(DAY)
    if dataset.sessions.rule != "given" and numbers:
        table.insert_column(0, pl.concat(numbers).alias(SESSION_ID))
    sessions = replace(sessions, table=table)
    with ThreadPoolExecutor(pl.thread_pool_size()) as threads:
        # Packing is the most of a GPU's encoding, and pyarrow packs a file in one thread; a GPU packs no sooner than 16 cores.
        whole = with_lists(sessions)
        written = [threads.submit(_write, whole.slice(place, number), file) for file, place, number in files]
        yield
        for future in written:
            future.result()


def _write(table: pa.Table, file: Path) -> None:
    """Without dictionaries, which lists of ids hardly repeat in: a third less work for files of the same size."""
    pq.write_table(table, file, compression="zstd", compression_level=1, use_dictionary=False)


def name_of(day: date) -> str:
    """How a day is called in folders and facts."""
    return UNDATED if day == ONE_BATCH else str(day)
