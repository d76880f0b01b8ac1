"""Sessions: encoded rows grouped into one row a session, numbered, written as one Parquet file a day and bucket."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl

from preprocessing.features.feature import Feature
from preprocessing.frames import write
from preprocessing.sessions import ONE_BATCH, SESSION_INDEX, changed
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
SESSIONS_A_DAY = 1_000_000_000  # sessions are numbered from their day's number times this


def kept_columns(dataset: Dataset, columns: list[str]) -> list[str]:
    """The columns of rows that sessions are written with, beside their features."""
    labels = (label.column for label in dataset.labels)
    wanted = (SESSION_INDEX, DAY, END, SESSION_ID, USER_ID, TIMESTAMP, *labels)
    return [name for name in wanted if name in columns]


def group(encoded: pl.LazyFrame, dataset: Dataset, features: list[Feature]) -> pl.LazyFrame:
    """One row a session: day, who, when it began and ended, how long; a list for every feature and label per event.

    Of a feature per session it is the first event's value, which is known when the session starts: the last event is the one
    to be predicted. Of a label per session, which is predicted itself, it is the last event's.
    Rows are in order of session and time, and so are the lists. Sessions come in order of their day.
    """
    given = [pl.col(SESSION_ID).first()] if dataset.sessions.rule == "given" else []
    dated = TIMESTAMP in dataset.events.columns
    context = [feature.name for feature in features if feature.per == "session"]
    labels = [label.column for label in dataset.labels if label.per == "session"]
    lists = [feature.name for feature in features if feature.per == "event"]
    lists += [label.column for label in dataset.labels if label.per == "event"]
    return (
        encoded.sort(DAY, maintain_order=True)  # moving events now costs a third of moving lists later
        .with_columns(changed(SESSION_INDEX).cast(pl.Int64).cum_sum().set_sorted().alias(SESSION_INDEX))
        .group_by(SESSION_INDEX, maintain_order=True)
        .agg(
            pl.col(DAY).first(),
            *given,
            pl.col(USER_ID).first(),
            (pl.col(TIMESTAMP) if dated else pl.lit(None, dtype=TIME)).first().alias(START),
            pl.col(END).first(),
            pl.len().cast(pl.Int32).alias(LENGTH),
            *(pl.col(name).first() for name in context),
            *(pl.col(name).last() for name in labels),
            *(pl.col(name) for name in lists),
        )
        .drop(SESSION_INDEX)
    )


def count_sessions(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Kept rows, by session -> how many sessions each day has: `day`, `sessions`."""
    starts = rows.filter(changed(SESSION_INDEX))
    return starts.group_by(DAY).agg(pl.len().cast(pl.Int64).alias(NUM_SESSIONS))


def write_parts(
    sessions: pl.DataFrame, earlier: list[pl.DataFrame], dataset: Dataset, folder: Path, bucket: int
) -> None:
    """Write the sessions of one bucket, which come in order of their day, as `<folder>/<day>/<bucket>.parquet`.

    `earlier` are the counts of the buckets before this one. Sessions without a given id are numbered day by day, in order of
    user and start however many buckets there are: a bucket holds users that follow each other.
    """
    before: dict[date, int] = {}
    for counts in earlier:
        for day, number in counts.iter_rows():
            before[day] = before.get(day, 0) + number
    place = 0
    for day, number in sessions.group_by(DAY, maintain_order=True).len().iter_rows():
        part = sessions.slice(place, number).drop(DAY)
        place += number
        if dataset.sessions.rule != "given":
            first = (day - ONE_BATCH).days * SESSIONS_A_DAY + 1 + before.get(day, 0)
            part = part.with_row_index(SESSION_ID).with_columns(pl.col(SESSION_ID).cast(pl.Int64) + first)
        part = part.select(SESSION_ID, pl.exclude(SESSION_ID))
        write(part, folder / name_of(day) / f"{bucket:05}.parquet")


def name_of(day: date) -> str:
    """How a day is called in folders and facts."""
    return UNDATED if day == ONE_BATCH else str(day)
