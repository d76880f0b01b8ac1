"""What preparation writes: sessions of a day, the item table, quarantine, vocabularies."""

from __future__ import annotations

from datetime import date

import polars as pl

from preprocessing.features.feature import Feature
from preprocessing.parquet import write as write
from preprocessing.sessions import ONE_BATCH, SESSION_INDEX, changed
from preprocessing.source.values import TIME
from preprocessing.vocabulary import below
from schemas.columns import (
    COUNT,
    DAY,
    END,
    FIRST_ID,
    ID,
    ITEM_ID,
    LENGTH,
    SESSION_ID,
    START,
    TIMESTAMP,
    UNDATED,
    USER_ID,
    VALUE,
)
from schemas.dataset import Dataset

LAST_SEEN = "last_seen"
SESSIONS_A_DAY = 1_000_000_000  # sessions are numbered from their day's number times this


def kept_columns(dataset: Dataset, columns: list[str]) -> list[str]:
    """The columns of rows that sessions are written with, beside their features."""
    labels = (label.column for label in dataset.labels)
    wanted = (SESSION_INDEX, DAY, END, SESSION_ID, USER_ID, TIMESTAMP, *labels)
    return [name for name in wanted if name in columns]


def group(encoded: pl.LazyFrame, dataset: Dataset, chains: list[Feature]) -> pl.LazyFrame:
    """One row a session: day, who, when it began and ended, how long; a list for every feature and label per event.

    Of a feature per session it is the first event's value, which is known when the session starts: the last event is the one
    to be predicted. Of a label per session, which is predicted itself, it is the last event's.
    Rows are in order of session and time, and so are the lists. Sessions come in order of their day.
    """
    given = [pl.col(SESSION_ID).first()] if dataset.sessions.rule == "given" else []
    dated = TIMESTAMP in dataset.events.columns
    context = [chain.name for chain in chains if chain.per == "session"]
    labels = [label.column for label in dataset.labels if label.per == "session"]
    lists = [chain.name for chain in chains if chain.per == "event"]
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


def of_day(parts: list[pl.LazyFrame], day: date, dataset: Dataset) -> pl.DataFrame:
    """One day's sessions of all buckets together, numbered in their order if they have no given id.

    They are in order of user and start, however many buckets there are: a bucket holds users that follow each other.
    """
    sessions = pl.concat(parts)
    if dataset.sessions.rule != "given":
        first = (day - ONE_BATCH).days * SESSIONS_A_DAY + 1
        sessions = sessions.with_row_index(SESSION_ID, offset=0).with_columns(pl.col(SESSION_ID).cast(pl.Int64) + first)
    rest = pl.exclude(DAY, SESSION_ID)
    return sessions.select(SESSION_ID, rest).collect(engine="in-memory")


def latest_of_items(encoded: pl.LazyFrame, dataset: Dataset, chains: list[Feature]) -> pl.LazyFrame:
    """One row an item id: when it was last seen, and each side feature's value then."""
    side = [chain.name for chain in chains[1:] if chain.per == "event"]
    seen = encoded.filter(pl.col(ITEM_ID) >= FIRST_ID)
    if TIMESTAMP not in dataset.events.columns:
        return seen.group_by(ITEM_ID).agg(pl.lit(None, dtype=TIME).first().alias(LAST_SEEN), pl.col(side).last())
    # Looking up each item's last moment costs half of what sorting all rows by time does.
    moments = seen.group_by(ITEM_ID).agg(pl.col(TIMESTAMP).max().alias(LAST_SEEN))
    last = seen.join(moments, on=ITEM_ID, how="left", maintain_order="left").filter(
        pl.col(TIMESTAMP) == pl.col(LAST_SEEN)
    )
    # Of events at the same moment, the smallest values: the same however users were divided.
    return last.group_by(ITEM_ID).agg(pl.col(LAST_SEEN).first(), pl.col(side).min())


def merge_items(parts: list[pl.DataFrame], side: list[str]) -> pl.DataFrame:
    """The latest of each item, of later parts where they have it."""
    together = pl.concat(parts, how="vertical_relaxed").lazy()
    newest = pl.col(LAST_SEEN).eq_missing(pl.col(LAST_SEEN).max().over(ITEM_ID))
    kept = together.filter(newest).group_by(ITEM_ID).agg(pl.col(LAST_SEEN).first(), pl.col(side).min())
    return kept.sort(ITEM_ID).collect(engine="in-memory")


def item_table(vocabulary: pl.DataFrame, latest: pl.DataFrame, cardinality: int) -> pl.DataFrame:
    """One row an item id: value, count, and what is known of its latest event."""
    known = below(vocabulary, cardinality).lazy()
    joined = known.join(latest.lazy(), left_on=ID, right_on=ITEM_ID, how="left", maintain_order="left")
    return joined.select(ID, VALUE, COUNT, pl.exclude(ID, VALUE, COUNT)).collect(engine="in-memory")


def name_of(day: date) -> str:
    """How a day is called in folders and facts."""
    return UNDATED if day == ONE_BATCH else str(day)
