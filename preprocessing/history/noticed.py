"""What is said of a day that has events beyond how they look: days before it without any, columns and items that came or went.

These are warnings of the day: in its facts, in the report and in the night's message. Nothing is refused by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import polars as pl

from preprocessing.execution.run import Run
from preprocessing.frames import collect
from preprocessing.history.ledger import Ledger, facts_of
from preprocessing.source.lookups import read_items
from schemas.columns import DAY, ITEM_ID

COLUMNS, ITEMS = "columns", "items_in_table"  # facts of the last day of a batch
ONE_DAY, WEEK = timedelta(days=1), timedelta(days=7)
FEWER = 0.9  # an item table that holds a smaller share of what it held is worth a word
MOST_NAMED = 7


@dataclass(frozen=True)
class Noticed:
    """Facts for the last day of a batch, and warnings by day."""

    facts: dict[str, Any] = field(default_factory=dict)
    warnings: dict[date, list[str]] = field(default_factory=dict)
    last: date | None = None

    def of(self, day: date) -> dict[str, Any]:
        """`facts` and `warnings` of a day."""
        return {"facts": self.facts if day == self.last else {}, "warnings": self.warnings.get(day, [])}


def notice(run: Run, ledger: Ledger, days: Sequence[date], done_again: Sequence[str] = ()) -> Noticed:
    """Compare a batch with the finished days: `days` are those of it that have events, in order.

    `done_again` is what to say of days that this run did again; the newest day of all says it.
    """
    if not days:
        return Noticed()
    before = facts_of(ledger.days.row(-1, named=True)) if ledger.days.height else {}
    events = _Events(ledger, {*run.source.index.days(), *run.source.held_back})
    with_events = [day for day in days if events.on(day)]
    warnings = {day: lines for day in with_events if (lines := events.lack_before(day))}
    facts: dict[str, Any] = {}
    newest = warnings.setdefault(days[-1], [])
    if not ledger.days.height or days[-1] >= ledger.days[DAY][-1]:
        newest += done_again
    until = ledger.about.until
    done = [day for day in with_events if day not in run.source.held_back]
    if until and days[0] > until and len(done) > 1:
        newest.append(f"{len(done)} days were done at once, in order: {_listed(done)}")
    if columns := run.source.files.names():
        facts[COLUMNS] = sorted({*before.get(COLUMNS, ()), *(name for names in columns.values() for name in names)})
        newest += _columns(columns, before.get(COLUMNS), run.source.files.wanted)
    elif COLUMNS in before:
        facts[COLUMNS] = before[COLUMNS]
    if run.dataset.items:
        facts[ITEMS] = collect(read_items(run.dataset).select(pl.col(ITEM_ID).n_unique())).item()
        held = before.get(ITEMS)
        if held and facts[ITEMS] < FEWER * held:
            newest.append(f"the item table has {facts[ITEMS]:,} items, and had {held:,} on the day before")
    return Noticed(facts, warnings, days[-1])


@dataclass(frozen=True)
class _Events:
    """Which days have events: in the source now, or when they were done. Some have sessions of the evening before alone."""

    ledger: Ledger
    there: set[date]

    def on(self, day: date) -> bool:
        if day in self.there:
            return True
        row = self.ledger.row(day)
        return row is not None and facts_of(row)["rows_in"] > 0

    def lack_before(self, day: date) -> list[str]:
        """What to say of days right before one that have no event; not of weekdays that had none the week before either."""
        first = min([*self.there, *self.ledger.days[DAY].head(1)])
        empty: list[date] = []
        while (other := day - (len(empty) + 1) * ONE_DAY) >= first and not self.on(other):
            empty.insert(0, other)
        if empty and empty[0] == first:  # sessions of a day before what is known
            return []
        empty = [
            other for other in empty if other - WEEK < first or self.on(other - WEEK)
        ]  # a shop that is shut on Sundays is no news
        return [f"there were no events of {_listed(empty)} before it"] if empty else []


def _columns(columns: Mapping[str, Sequence[str]], before: Sequence[str] | None, wanted: set[str]) -> list[str]:
    """What is new in the files that were opened, and what of the wanted columns they lack. `before`: None on a first night."""
    if before is None:
        return []
    new: dict[str, str] = {}
    for file, names in columns.items():
        new |= {name: file for name in names if name not in before and name not in wanted and name not in new}
    lost = sorted(name for name in wanted & set(before) if not any(name in names for names in columns.values()))
    listed = ", ".join(f"{name!r} (in {file})" for name, file in list(new.items())[:MOST_NAMED])
    lines = (
        [f"new columns in the events, which nothing reads: {listed}; events.columns maps what is to be used"]
        if new
        else []
    )
    return lines + (
        [f"the newest files of events lack {', '.join(map(repr, lost))}, so that is empty in them"] if lost else []
    )


def _listed(days: Sequence[date]) -> str:
    """2026-03-07; 2026-03-07 and 2026-03-08; 2026-03-01 to 2026-03-20, 20 days."""
    if len(days) > MOST_NAMED:
        return f"{days[0]} to {days[-1]}, {len(days)} days"
    return " and ".join(filter(None, [", ".join(map(str, days[:-1])), str(days[-1])]))
