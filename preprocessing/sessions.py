"""Cut events into sessions, with global operations on sorted rows only: no window per user, so any engine can run it.

Order, and so the answer to every tie: user, (session if given,) time or position, item, event type, and if rows still tie,
all their other columns. The order of rows in the source never matters. On a GPU, columns that hold lists order nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from operator import and_, or_

import polars as pl

from preprocessing.source.values import TIME, local_day
from schemas.columns import DAY, END, EVENT_TYPE, ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset

EVENT_DAY = "event day"  # the local day of an event, or the day it counts to when its time cannot be used
KEY = "row key"
TIE, TIED = (
    "tie",
    "tied",
)  # whether a row agrees with the one before it in all that orders rows; also with the one after it
SESSION_INDEX = "session_index"  # numbers sessions in the order of the rows, from 1
ONE_BATCH = date(1970, 1, 1)  # the day of all rows of a dataset that is taken as one batch (split: leave_one_out)


@dataclass(frozen=True)
class Window:
    """Days of events used. None: no limit on that side."""

    first: date | None = None
    last: date | None = None

    def holds(self, day: pl.Expr) -> pl.Expr:
        """Whether a day is inside."""
        inside = pl.lit(True)
        if self.first:
            inside = inside & (day >= self.first)
        if self.last:
            inside = inside & (day <= self.last)
        return inside


def row_key(columns: Iterable[str]) -> pl.Expr:
    """A hash of what makes an event: user, session, item, time, position and type, as far as these columns have them."""
    there = set(columns)
    identity = (USER_ID, SESSION_ID, ITEM_ID, TIMESTAMP, POSITION, EVENT_TYPE)
    hashes = [pl.col(name).hash(seed) for seed, name in enumerate(identity) if name in there]
    return pl.sum_horizontal(hashes).alias(KEY)


def changed(column: str) -> pl.Expr:
    """Whether a row differs from the one before it; the first row does."""
    return pl.col(column).ne_missing(pl.col(column).shift(1))


def has_ties(ordered: pl.LazyFrame, keys: list[str], rest: list[str], among: pl.Expr | None = None) -> pl.LazyFrame:
    """Of events in order of `keys`: one value, whether any two neighbours agree in all keys and differ in `rest`.

    Only rows `among` them count.

    Sorting by all columns is dear and ties are rare, so a caller looks here first.
    """
    tie = ~differs(keys) if among is None else ~differs(keys) & among
    marked = ordered.with_columns(tie.alias(TIE), (tie | tie.shift(-1).fill_null(False)).alias(TIED))
    return marked.filter(TIED).select((pl.col(TIE) & differs(rest)).any())


def differs(columns: Iterable[str]) -> pl.Expr:
    """Whether a row, of rows in order, differs from the one before it in any of `columns`."""
    return _any(changed(name) for name in columns)


def cut(events: pl.LazyFrame, dataset: Dataset) -> pl.LazyFrame:
    """Add `session_index` to events in order."""
    start = changed(USER_ID)
    if dataset.sessions.rule == "given":
        start = start | changed(SESSION_ID)
    if dataset.sessions.rule != "history" and TIMESTAMP in dataset.events.columns:
        since_last = pl.col(TIMESTAMP) - pl.col(TIMESTAMP).shift(1)
        start = start | (since_last > patience(dataset)).fill_null(True)
    return events.with_columns(start.cast(pl.Int64).cum_sum().alias(SESSION_INDEX))


def patience(dataset: Dataset) -> timedelta:
    """How long after its last event a session is still open."""
    rule = dataset.sessions
    minutes = {"gap": rule.gap_minutes, "given": rule.idle_minutes, "history": 0.0}[rule.rule]
    return timedelta(minutes=minutes)


def close(events: pl.LazyFrame, dataset: Dataset) -> pl.LazyFrame:
    """Add each session's `end` (the time of its last event, null without times) and `day`.

    To be taken before steps drop events from sessions. A session's day is the local day in which it closes, its patience
    after its end: until then another event might still have joined it.
    """
    if TIMESTAMP not in dataset.events.columns:
        return events.with_columns(pl.lit(None, dtype=TIME).alias(END), pl.lit(ONE_BATCH).alias(DAY))
    end = pl.when(is_last()).then(pl.col(TIMESTAMP)).fill_null(strategy="backward")
    day = local_day(pl.col(END) + patience(dataset), dataset.time_zone)
    day = day if dataset.split == "day" else pl.lit(ONE_BATCH)
    return events.with_columns(end.alias(END)).with_columns(day.alias(DAY))


def long_enough(min_length: int) -> pl.Expr:
    """Whether a row, of rows in order, is of a session of at least `min_length` events.

    A session is long enough when `min_length` neighbouring rows belong to it: each of its rows is in such a stretch.
    """
    index = pl.col(SESSION_INDEX)

    def same(shift: int) -> pl.Expr:
        return index.shift(shift).fill_null(0) == index

    if min_length == 1:
        return pl.lit(True)
    ends = [[shift for shift in (place, place - min_length + 1) if shift] for place in range(min_length)]
    return reduce(or_, (reduce(and_, map(same, shifts)) for shifts in ends))


def recent(max_length: int) -> pl.Expr:
    """Whether a row, of rows in order, is one of the last `max_length` events of its session."""
    index = pl.col(SESSION_INDEX)
    return index.shift(-max_length).fill_null(0) != index


def is_last() -> pl.Expr:
    """Whether a row is the last of its session."""
    return pl.col(SESSION_INDEX).shift(-1).fill_null(0) != pl.col(SESSION_INDEX)


def sort_keys(dataset: Dataset, columns: Iterable[str]) -> list[str]:
    """The columns that put events in order."""
    keys = [USER_ID, TIMESTAMP, POSITION, ITEM_ID, EVENT_TYPE]
    keys.insert(1 if dataset.sessions.rule == "given" else 4, SESSION_ID)
    there = set(columns)
    return [name for name in keys if name in there]


def by_day(rows: pl.DataFrame) -> dict[date, pl.DataFrame]:
    """Rows in order of day -> those of each day, of which nothing is copied. Empty where rows are not in that order."""
    days = rows[DAY].rle().struct.unnest()
    starts = days["len"].cum_sum() - days["len"]
    parts = {day: rows.slice(*place) for day, *place in zip(days["value"], starts, days["len"], strict=True)}
    return parts if len(parts) == days.height else {}


def _any(conditions: Iterable[pl.Expr]) -> pl.Expr:
    return pl.any_horizontal(conditions)
