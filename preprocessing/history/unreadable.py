"""Event files that cannot be read: days before the one that their names say are done without them, the rest wait.

    until 2026-03-04, events/2026-03-05.parquet is damaged  ->  done; a line says that days from 2026-03-05 on wait for the file
    until 2026-03-05 or later, or a name without a day      ->  refused: which rows are in it nobody knows

A name decides only where a file cannot be read. Should the mended file hold events of an earlier day after all, that day's
events have changed, and it is done again as any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import TypeVar

import polars as pl

from preprocessing.source.events import EventFiles
from preprocessing.source.files import reading
from preprocessing.source.listing import SourceFile
from schemas.dataset import Dataset
from schemas.errors import InputError

DAYS = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_./]?(0[1-9]|1[0-2])[-_./]?(0[1-9]|[12]\d|3[01])(?!\d)"
    r"|year=(\d{4})/month=(\d{1,2})/day=(\d{1,2})(?!\d)"
)
MOST = 5  # files that are named
Indexed = TypeVar("Indexed")


def without_later(
    dataset: Dataset, until: date | None, index: Callable[[frozenset[str]], Indexed], say: Callable[[str], object]
) -> Indexed:
    """What `index` gives of all files, else of those without the unreadable ones that are of days after `until` by their names.

    Raises:
        InputError: where another file cannot be read, with the day that its name says.
    """
    try:
        return index(frozenset())
    except InputError as error:
        later = _unreadable(dataset, until) if until else {}
        if not later:
            raise _with_hint(error, dataset) from None
    listed = "; ".join(f"{path} ({reason})" for path, reason in list(later.items())[:MOST])
    first = min(day for path in later if (day := day_of(path)))
    say(
        f"Left out of this run, as they cannot be read and are of later days by their names: {listed}. Days from {first} on "
        "wait until these are mended or removed."
    )
    try:
        return index(frozenset(later))
    except InputError as error:
        raise _with_hint(error, dataset) from None


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


def _unreadable(dataset: Dataset, until: date) -> dict[str, str]:
    """By path, why a file of later days by its name cannot be read."""
    files = EventFiles(dataset)
    later = [file for file in files.files if (day := day_of(file.path)) and day > until]
    return {file.path: reason for file in later if (reason := _why_not(files, file))}


def _why_not(files: EventFiles, file: SourceFile) -> str:
    """Why not all rows of a file can be read; empty where they can."""
    try:
        with reading(file.url):
            files.scan([file]).select(pl.struct(pl.all()).hash().sum()).collect(engine="streaming")
    except InputError as error:
        return str(error).removeprefix(file.url).strip(" :")
    return ""


def _with_hint(error: InputError, dataset: Dataset) -> InputError:
    """The error, and what can be done without the file that it names."""
    if type(error) is not InputError:
        return error
    named = [file for file in EventFiles(dataset).files if file.url in str(error)]
    day = day_of(max(named, key=lambda file: len(file.url)).path) if named else None
    if day is None:
        return error
    return InputError(
        f"{str(error).rstrip('.')}. By its name it is of {day}: days before it are done without it (--until, or a backfill), "
        "days from then on when it is mended or removed."
    )
