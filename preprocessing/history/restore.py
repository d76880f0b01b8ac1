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
from schemas.artifacts import Artifacts, File
from schemas.columns import DAY


def from_snapshots(artifacts: Artifacts, row: dict[str, Any], paths: list[str]) -> str:
    """Put back the lost files `paths` of a finished day that snapshots link.

    Returns the name of a snapshot that they are from; empty when one of them is in none.
    """
    used = ""
    for file in files_of(row):
        if file.path in paths:
            source = next(
                (link for link in _links(artifacts, row[DAY], file.path) if file.is_at(link, contents=True)), None
            )
            if source is None:
                return ""
            _put(source, artifacts.root / row["artifact"] / file.path)
            used = f"{SNAPSHOTS}/{source.relative_to(artifacts.root / SNAPSHOTS).parts[0]}"
    return used


def from_day(artifacts: Artifacts, row: dict[str, Any], new: dict[str, Any]) -> bool:
    """Put back the files of a finished day from the same day done anew, also where snapshots link what was damaged.

    Returns False, and does nothing, when the new files are others.
    """
    new_files = {file.path: file for file in files_of(new)}
    if any(
        new_files.get(file.path, file).sha256 != file.sha256 or file.path not in new_files for file in files_of(row)
    ):
        return False
    for file in files_of(row):
        source, target = artifacts.root / new["artifact"] / file.path, artifacts.root / row["artifact"] / file.path
        damaged = [link for link in _links(artifacts, row[DAY], file.path) if not _is_whole(link, file)]
        for place in [target, *damaged]:
            if not _is_whole(place, file):
                _put(source, place)
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


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(source, temporary)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, temporary)
    temporary.replace(target)
