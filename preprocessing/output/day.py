"""One finished day: the artifact `days/<id>`.

sessions.parquet        one row a session; of more than one bucket also sessions-1.parquet, ...
open.parquet            events of sessions that were open when the day ended, with `event day` and `day` (when they close);
                        none if there were none
quarantine.parquet      bad rows as they are in the source, with `rule`
profile.parquet         what the day's events look like, counted
rows.parquet            a hash of every row it was made of; of recent days only
aside.parquet           of quarantine, the rows that no day is made of: those that came too late for theirs, or have none
aside_rows.parquet      a hash of each of them that has a day, and the day
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from preprocessing import account as accounts
from preprocessing.account import DROPPED, FATE, KEPT, NAME, NULLED, QUARANTINED, READ
from preprocessing.frames import collect, write
from preprocessing.output.profile import Profiles
from preprocessing.output.sessions import name_of
from preprocessing.sessions import EVENT_DAY, by_day, sort_keys
from preprocessing.source.index import DIGEST, HASH, PATH, ROWS
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import COUNT, DAY, RULE
from schemas.dataset import Dataset

KIND = "days"
STRETCH = 500_000  # rows
EPOCH = date(1970, 1, 1).toordinal()
SESSIONS, OPEN, QUARANTINE = "sessions", "open.parquet", "quarantine.parquet"
ROWS_FILE, ASIDE, ASIDE_ROWS = "rows.parquet", "aside.parquet", "aside_rows.parquet"
PART_FIELDS = (PATH, DAY, ROWS, DIGEST, "aside")
_PART = pl.Struct({PATH: pl.String, DAY: pl.Date, ROWS: pl.Int64, DIGEST: pl.UInt64, "aside": pl.Boolean})
_FILE = pl.Struct({PATH: pl.String, "size": pl.Int64, "sha256": pl.String, "mtime_ns": pl.Int64})
_COUNT = pl.Struct({FATE: pl.String, NAME: pl.String, COUNT: pl.Int64})
ROW = pl.Schema(
    {  # type: ignore[arg-type]
        DAY: pl.Date,
        "artifact": pl.String,  # days/<id>
        "before": pl.String,  # states/<id>: the state before it; empty where that was not kept
        "statistics": pl.String,  # states/<id>: where its own statistics are
        "made_of": pl.List(_PART),  # parts of files: all rows of a file that are of one day (null: of no usable one)
        "carried_in": pl.Int64,  # open events of the day before
        "sessions": pl.Int64,
        "files": pl.List(_FILE),
        "account": pl.List(_COUNT),
        "facts": pl.String,  # JSON
    }
)


@dataclass(frozen=True)
class Parts:
    """What a day is written from."""

    day: date
    day_id: str
    session_files: Sequence[Path]
    carried_in: int
    tables: Mapping[str, pl.DataFrame | None]
    """By the name of the file; None: there is no such file."""
    account: pl.DataFrame
    new_items: int
    facts: Mapping[str, Any]
    warnings: Sequence[str]

    @property
    def still_open(self) -> int:
        """How many events are of sessions that are open when the day ends."""
        waiting = self.tables[OPEN]
        return 0 if waiting is None else waiting.height


@dataclass(frozen=True)
class DayWriter:
    """Writes the days of a batch from what its tasks left."""

    artifacts: Artifacts
    dataset: Dataset
    dropping: list[str]
    """The names of all that may drop rows, in order."""
    frames: Callable[[str], list[pl.LazyFrame]]
    account: pl.DataFrame
    profiles: Profiles
    vocabulary: pl.DataFrame
    """Of items, after the batch."""
    made_with: dict[str, Any]
    _held: dict[str, Any] = field(default_factory=dict)
    """By file: the stretch of days whose rows are held, and these rows."""

    def write(self, day: date, day_id: str, session_files: Sequence[Path], carried_in: int) -> Manifest:
        """Write a day that nothing is set aside for."""
        return self.put(self.gather(day, day_id, session_files, carried_in))

    def gather(
        self,
        day: date,
        day_id: str,
        session_files: Sequence[Path],
        carried_in: int,
        set_aside: pl.DataFrame | None = None,
        aside_rows: pl.DataFrame | None = None,
        *,
        facts: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
    ) -> Parts:
        """All that a day is written from; days are asked for in order. `session_files` are linked, for a run that is killed
        needs them again; `set_aside` are further bad rows with their `rule`, `aside_rows` hashes of them by the day that each
        is of. `facts` and `warnings` are further ones.
        """
        account = self._accounts.get(day, self.account.clear())
        if set_aside is not None:
            account = accounts.add_up([account, account_of(set_aside, day)])
        tables = {
            OPEN: _or_none(self._open(day)),
            QUARANTINE: _or_none(self._quarantine(day, set_aside)),
            ROWS_FILE: pl.concat(parts) if (parts := self._rows.get(day)) else None,
            ASIDE: set_aside,
            ASIDE_ROWS: _or_none(aside_rows),
        }
        new_items = self._admitted.get(day, 0)
        return Parts(day, day_id, session_files, carried_in, tables, account, new_items, facts or {}, warnings)

    def put(self, parts: Parts) -> Manifest:
        """Write a day. Threads may write several at a time."""
        with self.artifacts.write(KIND, parts.day_id, parameters=self.made_with) as draft:
            for number, file in enumerate(parts.session_files):
                target = draft.folder / (f"{SESSIONS}.parquet" if number == 0 else f"{SESSIONS}-{number}.parquet")
                target.hardlink_to(file)
            for name, table in parts.tables.items():
                if table is not None and name == ROWS_FILE:  # hashes do not pack
                    table.write_parquet(draft.folder / name, compression="uncompressed", metadata={"hash": HASH})
                elif table is not None:
                    write(table, draft.folder / name)
            draft.facts = self._facts(parts)
            self.profiles.write(parts.day, draft)
            draft.facts |= {**parts.facts, "warnings": [*draft.facts["warnings"], *parts.warnings]}
        return draft.manifest

    # What a batch left is divided by day once: a question a day to all of it would grow with the square of the days. Where
    # bad rows or open events are many, stretches of days are taken one after the other, for memory must not grow with them.

    @cached_property
    def _rows(self) -> dict[date, list[pl.DataFrame]]:
        """A hash of every row of each day that they are kept of; tasks leave them in order of their day."""
        of_days: dict[date, list[pl.DataFrame]] = {}
        for frame in map(collect, self.frames("rows")):
            place, hashes = 0, frame.drop(EVENT_DAY)
            for count, day in frame[EVENT_DAY].rle().struct.unnest().iter_rows():
                of_days.setdefault(day, []).append(hashes.slice(place, count))
                place += count
        return of_days

    @cached_property
    def _accounts(self) -> dict[date, pl.DataFrame]:
        return by_day(self.account)

    @cached_property
    def _admitted(self) -> dict[date, int]:
        """How many items each day brought an id."""
        return dict(self.vocabulary["admitted"].value_counts().rows())

    @cached_property
    def _sessions(self) -> dict[date, tuple[int, int]]:
        """How many sessions each day has, and of how many users: a bucket has all events of its users."""
        counts: dict[date, tuple[int, int]] = {}
        for day, sessions, users in pl.concat([collect(frame) for frame in self.frames("users")]).iter_rows():
            before = counts.get(day, (0, 0))
            counts[day] = before[0] + sessions, before[1] + users
        return counts

    @cached_property
    def _starts(self) -> list[date]:
        """The first days of stretches of days whose open events and bad rows are held at a time, but of the first stretch."""
        frames = [frame.select(EVENT_DAY) for name in ("open", "quarantine") for frame in self.frames(name)]
        if collect(pl.concat([frame.select(pl.len()) for frame in frames])).to_series().sum() < STRETCH:
            return []
        rows = collect(pl.concat(frames).drop_nulls().group_by(EVENT_DAY).len().sort(EVENT_DAY))
        stretch = pl.col("len").cum_sum() // STRETCH
        return rows.filter(stretch > stretch.shift(1, fill_value=0))[EVENT_DAY].to_list()

    def _stretch(self, day: date) -> tuple[date, date]:
        """The first and the last day of the day's stretch."""
        starts, place = self._starts, bisect_right(self._starts, day)
        first = starts[place - 1] if place else date.min
        return first, starts[place] - timedelta(days=1) if place < len(starts) else date.max

    def _waiting(self, first: date, last: date) -> tuple[pl.DataFrame, dict[date, pl.DataFrame]]:
        """The events of sessions that were open at the end of each day of a stretch, in order, and none of the same columns."""
        if (first, last) != self._held.get(OPEN, (None,))[0]:
            self._held.pop(OPEN, None)
            waiting = pl.concat(self.frames("open")).filter((pl.col(EVENT_DAY) <= last) & (pl.col(DAY) > first))
            keys = sort_keys(self.dataset, waiting.collect_schema().names())
            rows = collect(waiting.sort(keys))
            self._held[OPEN] = (first, last), (rows.clear(), _open_by_day(rows))
        return self._held[OPEN][1]

    def _bad(self, first: date, last: date) -> tuple[pl.DataFrame, dict[date, pl.DataFrame]]:
        """The bad rows of each day of a stretch, in order, and no rows of the same columns."""
        if (first, last) != self._held.get(QUARANTINE, (None,))[0]:
            self._held.pop(QUARANTINE, None)
            bad = pl.concat(self.frames("quarantine"), how="diagonal_relaxed")
            rows = collect(bad.filter(pl.col(EVENT_DAY).is_between(first, last)))
            none = rows.drop(EVENT_DAY).clear()
            self._held[QUARANTINE] = (first, last), (none, _bad_by_day(rows.sort(_order_of(rows))))
        return self._held[QUARANTINE][1]

    def _open(self, day: date) -> pl.DataFrame:
        none, by_day = self._waiting(*self._stretch(day))
        return by_day.get(day, none)

    def _quarantine(self, day: date, set_aside: pl.DataFrame | None) -> pl.DataFrame:
        none, by_day = self._bad(*self._stretch(day))
        bad = by_day.get(day, none)
        if set_aside is None:
            return bad
        bad = pl.concat([bad, set_aside], how="diagonal_relaxed")
        return bad.sort(_order_of(bad))

    def _facts(self, parts: Parts) -> dict[str, Any]:
        account = parts.account
        sessions, users = self._sessions.get(parts.day, (0, 0))
        length = self.profiles.lengths(parts.day)
        return {
            "day": name_of(parts.day),
            "rows_in": accounts.total(account, READ),
            "carried_in": parts.carried_in,
            "quarantined": accounts.by_name(account, QUARANTINED),
            "nulled": accounts.by_name(account, NULLED),
            "dropped": accounts.by_name(account, DROPPED, self.dropping),
            "still_open": parts.still_open,
            "events": accounts.total(account, KEPT),
            "sessions": sessions,
            "users": users,
            "lengths": {f"p{q}": length.quantile(q / 100, "nearest") for q in (50, 90, 99, 100)} if sessions else {},
            "new_items": parts.new_items,
        }


def _or_none(table: pl.DataFrame | None) -> pl.DataFrame | None:
    """A table that has rows."""
    return table if table is not None and table.height else None


def _open_by_day(waiting: pl.DataFrame) -> dict[date, pl.DataFrame]:
    """The events that were open at the end of each day, from their own to the day before the one they count to, in order."""
    if waiting.is_empty():
        return {}
    opened, closed = (waiting[name].to_physical().to_numpy() for name in (EVENT_DAY, DAY))
    nights = np.maximum(closed - opened, 0)
    place = np.repeat(np.arange(waiting.height), nights)
    night = np.arange(len(place)) - np.repeat(np.cumsum(nights) - nights, nights)  # of each event, from 0
    day = opened[place] + night
    order = np.argsort(day, kind="stable")
    days, first = np.unique(day[order], return_index=True)
    parts = zip(days, np.split(place[order], first[1:]), strict=True)
    return {date.fromordinal(EPOCH + int(number)): waiting[rows] for number, rows in parts}


def _bad_by_day(bad: pl.DataFrame) -> dict[date, pl.DataFrame]:
    """The bad rows of each day, in their order, without `event day`."""
    parts = bad.partition_by(EVENT_DAY, as_dict=True, include_key=False)
    return {day: part for (day,), part in parts.items()}


def _order_of(bad: pl.DataFrame) -> list[str]:
    """What bad rows are in order of: the same however users were divided."""
    return [RULE, *(name for name in bad.columns if name not in (RULE, EVENT_DAY))]


def account_of(bad: pl.DataFrame, day: date) -> pl.DataFrame:
    """The account of bad rows by their `rule`."""
    account = accounts.Account()
    counts = bad.group_by(RULE).agg(pl.len().cast(pl.Int64).alias(COUNT))
    for rule, count in counts.sort(RULE).iter_rows():
        entry = pl.DataFrame({DAY: [day], COUNT: [count]}, schema_overrides={COUNT: pl.Int64})
        account.add(READ, entry)
        account.add(QUARANTINED, entry, rule)
    return account.table()


def row_of(
    manifest: Manifest, day: date, made_of: Sequence[tuple[Any, ...]], before: str, statistics: str
) -> dict[str, Any]:
    """What the ledger keeps of a finished day."""
    facts = manifest.facts
    counts = [(READ, "", facts["rows_in"]), (KEPT, "", facts["events"])]
    counts += [(QUARANTINED, name, n) for name, n in facts["quarantined"].items()]
    counts += [(NULLED, name, n) for name, n in facts["nulled"].items()]
    counts += [(DROPPED, name, n) for name, n in facts["dropped"].items()]
    return {
        DAY: day,
        "artifact": manifest.name,
        "before": before,
        "statistics": statistics,
        "made_of": [dict(zip(PART_FIELDS, part, strict=True)) for part in made_of],
        "carried_in": facts["carried_in"],
        "sessions": facts["sessions"],
        "files": [file.model_dump() for file in manifest.files],
        "account": [dict(zip((FATE, NAME, COUNT), entry, strict=True)) for entry in counts],
        "facts": json.dumps(facts),
    }
