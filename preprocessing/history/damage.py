"""Finished days whose files are lost or damaged, and states that are."""

from __future__ import annotations

import os
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from preprocessing.execution.run import Run
from preprocessing.features import state as states
from preprocessing.history.changes import Changes, days_in_words
from preprocessing.history.ledger import About, Ledger
from preprocessing.output.day import OPEN, QUARANTINE, SESSIONS
from schemas.artifacts import Artifacts, File
from schemas.columns import DAY
from schemas.errors import InputError


def damaged_days(
    artifacts: Artifacts, ledger: Ledger, since: date = date.min, *, contents: bool = False
) -> dict[date, list[str]]:
    """The finished days of which files are missing or are not as they were written, and those files.

    Without `contents`, of the days from `since` on, of sessions and quarantine alone (and of what the newest day leaves to the
    next), and by size and time of writing: in a moment, and however long ago the first day was.
    """
    if ledger.days.is_empty():
        return {}
    days = ledger.days
    if not contents:
        days = ledger.between(since, date.max) if days[DAY][-1] >= since else days.tail(1)
    files = days.select(DAY, "artifact", "files").explode("files").unnest("files").drop_nulls("path")
    if not contents:
        published = pl.col("path").str.starts_with(SESSIONS) | (pl.col("path") == QUARANTINE)
        needed = published | ((pl.col("path") == OPEN) & (pl.col(DAY) == pl.col(DAY).max()))
        files = files.filter(needed)
    damaged: dict[date, list[str]] = {}
    root = str(artifacts.root)
    for day, artifact, path, size, sha256, mtime_ns in files.iter_rows():
        place = f"{root}/{artifact}/{path}"
        try:
            found = os.stat(place)  # noqa: PTH116  (a third of the time of Path.stat, for every finished day)
        except OSError:
            damaged.setdefault(day, []).append(path)
            continue
        if contents or (found.st_size, found.st_mtime_ns) != (size, mtime_ns):
            file = File(path=path, size=size, sha256=sha256, mtime_ns=mtime_ns)
            if not file.is_at(Path(place), contents=contents):
                damaged.setdefault(day, []).append(path)
    return damaged


def restore_state(run: Run, ledger: Ledger, changes: Changes) -> bool:
    """Where the newest state is lost or damaged, go back to the one before it, or to the beginning; says whether it did.

    The days since are taken out of the ledger and done anew, which gives what they were: the source must hold them whole.

    Raises:
        InputError: when it does not.
    """
    name, artifacts = ledger.about.state, run.artifacts
    if not name or artifacts.find(*name.split("/")):
        return False
    newest = ledger.days[DAY].max()
    assert isinstance(newest, date)
    row = ledger.row(newest)
    assert row is not None
    finished = set(ledger.days[DAY])
    since = set(ledger.days.filter(pl.col("statistics") == name)[DAY])
    if since == {newest} <= changes.held and row["before"] and artifacts.find(*row["before"].split("/")):
        ledger.days = ledger.days.filter(pl.col(DAY) < newest)
        tail = row["before"].removeprefix(f"{states.KIND}/")
        ledger.change(until=newest - timedelta(days=1), state=row["before"], tail=tail)
        run.say(f"{name} is missing or damaged: {newest} is done again.")
    elif finished <= changes.held:
        ledger.days = ledger.days.clear()
        ledger.about = About(
            dataset=ledger.about.dataset,
            line=ledger.about.line,
            types=ledger.about.types,
            source=ledger.about.source,
        )
        run.say(f"{name} is missing or damaged: all {len(finished)} finished days are done again.")
    else:
        lost = sorted(finished - changes.held)
        raise InputError(
            f"{artifacts.root / name} is missing or damaged, and it cannot be made again: the source no longer holds all of "
            f"{days_in_words(lost)}. Restore the folder from a backup. Finished days are in order; what was published stays."
        )
    return True
