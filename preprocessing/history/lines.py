"""Lines of days: which finished days go with a dataset, and whether its source is the one they were made of.

A line is named by what of a dataset's YAML makes sessions, as it was written: neither defaults, which a later Overnight may add
to, nor code are part of it, so that an upgrade touches no finished day. What made a day stands in its manifest.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing.history.changes import COUNTED, Changes, days_in_words
from preprocessing.history.ledger import Ledger
from preprocessing.history.words import words_of
from preprocessing.source.index import ROWS
from schemas.artifacts import Artifacts, code_version, identify
from schemas.columns import DAY
from schemas.dataset import Dataset
from schemas.errors import InputError


def line_of(dataset: Dataset, secrets: tuple[str, ...]) -> str:
    """The name of the dataset's line. `secrets` are hashes of the keys that its steps use."""
    return identify(code="", secrets=secrets, dataset=words_of(dataset))


def place_of(source: str) -> str:
    """A source by an absolute name."""
    return source if "://" in source else str(Path(source).expanduser().resolve())


def made_with(dataset: Dataset, tables: dict[str, str], line: str) -> dict[str, Any]:
    """What makes a day of a line now: versions, code, the tables it reads, and the content of people's own parts."""
    rooms = Path(__file__).parents[1]
    return {
        "line": line,
        "overnight": _version(),
        "code": code_version(rooms, rooms.parent / "schemas")[:16],
        "dataset": dataset.model_dump(mode="json", exclude={"source", "plugins"}, exclude_defaults=True),
        "tables": tables,
        "parts": dataset.own_parts(),
    }


@cache
def _version() -> str:
    """Of Overnight; empty where its folder is used without having been installed."""
    try:
        return importlib.metadata.version("overnight")
    except importlib.metadata.PackageNotFoundError:
        return ""


def check_source(ledger: Ledger, dataset: Dataset, changes: Changes) -> None:
    """Refuse to go on with days that were made of another source.

    The same files at another place are no other source: a finished day must be there as it was, and so must all that are later
    than the oldest day there, which may have lost a part.

    Raises:
        InputError: with what to do.
    """
    before, now = ledger.about.source, place_of(dataset.source)
    if not before or before == now or ledger.days.is_empty():
        return
    there = changes.parts["counted"].min()
    finished = set(ledger.days[DAY])
    same = finished & changes.held
    missing = {day for day in finished - changes.held if there is not None and day > there}
    if same and not missing:
        return
    raise InputError(
        f"dataset {dataset.name!r} was prepared from {before} before, and {now} does not hold the same events "
        f"({len(same)} of {len(finished)} finished days are there as they were). Two sources are not mixed: give another "
        f"--root, or another name in the YAML (name: {dataset.name}-2). If the events have moved, move all files whose days "
        "are not finished long ago."
    )


def introduce(
    artifacts: Artifacts, ledger: Ledger, dataset: Dataset, changes: Changes, say: Callable[[str], object]
) -> None:
    """Of a new line, say which days of the dataset's other lines the source no longer holds."""
    if ledger.about.until is not None:
        return
    others = [about for about in Ledger.lines_of(artifacts, dataset.name) if about.line != ledger.about.line]
    if not others:
        return
    say(
        f"{dataset.name}: its YAML has changed in what makes sessions, so a new line of days begins beside the old one, of "
        "which nothing is removed."
    )
    dated = changes.parts.filter(pl.col(DAY) == pl.col(COUNTED)).group_by(DAY).agg(pl.col(ROWS).sum())
    rows: dict[date, int] = dict(dated.rows())
    there = set(changes.parts[COUNTED])
    for about in others:
        other = Ledger.read(artifacts, about.line)
        lost = sorted(day for day in other.days.filter(pl.col("sessions") > 0)[DAY] if day not in there)
        if lost:
            say(
                f"{len(lost)} days that were done before are no longer in the source and will not be in the new line: "
                f"{days_in_words(lost)}."
            )
        fewer = sorted(day for day, made_of in other.rows_by_day().items() if 0 < rows.get(day, 0) < made_of)
        if fewer:
            say(
                f"Of {len(fewer)} days that were done before, the source holds fewer rows than they were made of, so they "
                f"will be smaller in the new line: {days_in_words(fewer)}."
            )
