"""Put back files of finished days: from a snapshot that still holds them, or from the same day done anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from preprocessing.history.ledger import files_of
from preprocessing.output.day import QUARANTINE, SESSIONS
from preprocessing.output.snapshot import KIND as SNAPSHOTS
from schemas import lock
from schemas.artifacts import Artifacts, File
from schemas.columns import DAY


def from_snapshots(artifacts: Artifacts, row: dict[str, Any], paths: list[str], *, every: bool = True) -> str:
    """Put back those of the lost files `paths` of a finished day that snapshots link.

    Returns the name of a snapshot that they are from; empty when one of them is in none. Without `every`, only sessions
    count: what else was lost may be in none.
    """
    used, back = "", set()
    for file in files_of(row):
        if file.path in paths:
            source = next(
                (link for link in _links(artifacts, row[DAY], file.path) if file.is_at(link, contents=True)), None
            )
            if source is not None:
                _put(source, artifacts.root / row["artifact"] / file.path)
                used = f"{SNAPSHOTS}/{source.relative_to(artifacts.root / SNAPSHOTS).parts[0]}"
                back.add(file.path)
    needed = {path for path in paths if every or path.startswith(SESSIONS)}
    return used if needed <= back else ""


def from_day(artifacts: Artifacts, row: dict[str, Any], new: dict[str, Any]) -> bool:
    """Put back the files of a finished day from the same day done anew, also where snapshots link what was damaged.

    They are copied: what a disk loses of the one later is still in the other. Returns False, and does nothing, when the new
    files are others, or not as they were written.
    """
    new_files = {file.path: file for file in files_of(new)}
    for file in files_of(row):
        again = new_files.get(file.path)
        if again is None or again.sha256 != file.sha256:
            return False
        if not _is_whole(artifacts.root / new["artifact"] / file.path, file):
            return False
    for file in files_of(row):
        source, target = artifacts.root / new["artifact"] / file.path, artifacts.root / row["artifact"] / file.path
        damaged = [link for link in _links(artifacts, row[DAY], file.path) if not _is_whole(link, file)]
        if not _is_whole(target, file):
            _put(source, target, written=file.mtime_ns)
        for link in damaged:
            _put(target, link)
    return True


def _is_whole(place: Path, file: File) -> bool:
    return file.is_at(place, contents=True)


def _links(artifacts: Artifacts, day: date, path: str) -> Iterator[Path]:
    """Where snapshots hold a file of a day."""
    folder = "quarantine" if path == QUARANTINE else SESSIONS
    if path != QUARANTINE and not path.startswith(SESSIONS):
        return iter(())
    number = path.removesuffix(".parquet").partition("-")[2] or "0"
    return (artifacts.root / SNAPSHOTS).glob(f"*/{folder}/{DAY}={day}/part-{number}.parquet")


def _put(source: Path, target: Path, *, written: int = 0) -> None:
    """Link `source` as `target`, or copy it, where linking cannot be or with the time at which it is said to be `written`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if written:
            shutil.copyfile(source, temporary)
            os.utime(temporary, ns=(written, written))
        else:
            os.link(source, temporary)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, temporary)
    lock.require_held()
    temporary.replace(target)
