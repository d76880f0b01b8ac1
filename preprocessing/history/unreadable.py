"""Event files that cannot be read: the days that they are of are held back, and the rest are done as if these had no events.

    events/2026-03-05.parquet is damaged  ->  2026-03-04 and 2026-03-06 are done, and 2026-03-05 once the file is mended

Of which days such a file is, its name says, and how far the days in the other files are from those in their names: an export
of a week is called by its first day, and one by UTC reaches into a second day of New York. Where a name says no day, the ledger
says which finished days were made of the file; one that the newest of these is made of may have grown since, so that it may
hold any later day, too. A day that is held back is done late, as any whose events come after those of later days. A finished
day stays as it is. What is refused: the day that a run is for, where it is held back, and a file of which neither says a day,
as which rows are in it nobody knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date, timedelta

import polars as pl

from preprocessing.execution.reading import Source
from preprocessing.history.changes import days_in_words
from preprocessing.history.ledger import Ledger
from preprocessing.source.events import EventFiles
from preprocessing.source.files import reading
from preprocessing.source.index import PATH, ROWS, Index
from preprocessing.source.listing import SourceFile
from schemas.columns import DAY
from schemas.dataset import Dataset
from schemas.errors import InputError

DAYS = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_./]?(0[1-9]|1[0-2])[-_./]?(0[1-9]|[12]\d|3[01])(?!\d)"
    r"|year=(\d{4})/month=(\d{1,2})/day=(\d{1,2})(?!\d)"
)
MOST = 5  # files that are named
SHARE = 0.05  # of the rows of files that have a day in their names: fewer at a distance from it are stragglers


def without_unreadable(
    dataset: Dataset,
    ledger: Ledger,
    take: Callable[[frozenset[str]], Source],
    is_new: Callable[[Sequence[SourceFile]], list[SourceFile]],
    say: Callable[[str], object],
) -> Source:
    """What `take` gives of all files, else of all but those that cannot be read, with the days that are held back for them.

    `is_new` gives those of files that `take` would open.

    Raises:
        InputError: as `take` does, where it is not for single files, or for one of which nobody knows the days.
    """
    try:
        return take(frozenset())
    except InputError as error:
        files = EventFiles(dataset) if type(error) is InputError else None
        bad = _unreadable(files, is_new(files.files), ledger) if files else {}
        finished = {path: days for path in bad if day_of(path) is None and (days := _finished_of(path, ledger))}
        unknown = [path for path in bad if day_of(path) is None and path not in finished]
        if not bad or unknown or (files and len(bad) == len(files.files)):
            raise
    source = take(frozenset(bad))
    reach, today = _reach(source.index), source.index.today
    held: dict[date, str] = {}
    for path, why in bad.items():
        named = day_of(path)
        days = [named + away for away in reach] if named else _later(finished[path], ledger.about.until, today)
        held |= dict.fromkeys(days, why)
    done, first = set(ledger.rows_by_day()), dataset.since or date.min
    held = {day: why for day, why in sorted(held.items()) if first <= day < today and day not in done}
    say(_in_words(bad, list(held)))
    return replace(source, held_back=held)


def require_readable(source: Source, until: date | None, newest: date | None = None) -> None:
    """Refuse a run whose own day is held back: `until`, else any after `newest`, the last that can be done.

    Where events are not split by day, a run is of all days up to `until`.

    Raises:
        InputError: with the file and what to do.
    """
    if source.dataset.split != "day":
        days = [day for day in source.held_back if until is None or day <= until]
    elif until:
        days = [day for day in source.held_back if day == until]
    else:
        days = [day for day in source.held_back if newest and day > newest]
    if days:
        which = "other days are" if source.dataset.split == "day" else "days before it are"
        raise InputError(
            f"{source.held_back[days[-1]].rstrip('.')}. It may hold events of {days_in_words(days)}: {which} done "
            "without it (--until, or a backfill), that one when the file is mended or removed."
        )


def day_of(path: str) -> date | None:
    """The first day that a file's name or folders say: 2026-03-05.csv, 20260305_events.csv, year=2026/month=3/day=5/x.csv."""
    days = []
    for found in DAYS.finditer(path):
        year, month, day = (int(part) for part in found.groups() if part)
        try:
            days.append(date(year, month, day))
        except ValueError:
            continue
    return min(days, default=None)


def _finished_of(path: str, ledger: Ledger) -> list[date]:
    """The finished days that were made of a file, in order."""
    return sorted(set(ledger.parts().filter(pl.col(PATH) == path)["finished"]))


def _later(finished: list[date], until: date | None, today: date) -> list[date]:
    """The days after the last finished one, up to today, where that was made of the file; else none: it has ceased to grow."""
    if until is None or finished[-1] < until:
        return []
    return [until + timedelta(days=number) for number in range(1, (today - until).days)]


def _reach(index: Index) -> list[timedelta]:
    """How far the days in files are from those in their names: none, and what is usual in the files that can be read."""
    rows = index.table.filter(index.usable & (pl.col(ROWS) > 0)).select(PATH, DAY, ROWS)
    days = {path: day for path in rows[PATH].unique() if (day := day_of(path))}
    named = pl.DataFrame({PATH: list(days), "named": list(days.values())}, schema={PATH: pl.String, "named": pl.Date})
    away = rows.join(named, on=PATH).group_by((pl.col(DAY) - pl.col("named")).alias("away")).agg(pl.col(ROWS).sum())
    usual = away.filter(pl.col(ROWS) >= SHARE * pl.col(ROWS).sum())["away"]
    return sorted({timedelta(0), *usual})


def _unreadable(files: EventFiles, new: Iterable[SourceFile], ledger: Ledger) -> dict[str, str]:
    """By path, what to say of a file that cannot be read."""
    return {file.path: reason for file in new if (reason := _fault(files, file, ledger.types))}


def _fault(files: EventFiles, file: SourceFile, types: pl.Schema | None) -> str:
    """What to say of a file not all rows of which can be read; empty where they can."""
    try:
        with reading(file.url):
            rows = files.scan([file], expected=types)
            rows.select(pl.struct(pl.all()).hash().sum()).collect(engine="streaming")
    except InputError as error:
        return str(error).replace(file.url, file.path)
    return ""


def _in_words(bad: dict[str, str], held: list[date]) -> str:
    """One line for people."""
    listed = "; ".join(reason.rstrip(".") for reason in list(bad.values())[:MOST])
    more = f" and {len(bad) - MOST} more" if len(bad) > MOST else ""
    wait = (
        f"They may hold events of {days_in_words(held)}, which {'are' if len(held) > 1 else 'is'} done when they are mended or "
        "removed."
        if held
        else "No day waits for them: they are of days that are finished, or not over yet."
    )
    return f"Left out, as they cannot be read: {listed}{more}. {wait}"
