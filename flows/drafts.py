"""Which folders of `unfinished` below an artifact root nobody goes on with."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.night_lock import OPEN
from schemas.artifacts import UNFINISHED

OPEN_DAYS = 30  # a backtest that was stopped longer ago is not expected to go on
GOING = ".removed"  # ends the name of a folder that is being removed


def open_backtests(root: Path, since: datetime) -> Iterator[datetime]:
    """When backtests began that were stopped on the way and may go on."""
    for path in (root / UNFINISHED).glob(f"*/{OPEN}"):
        if not is_left(path.parent, since):
            yield datetime.fromtimestamp(path.stat().st_mtime, UTC)


def days_ago(days: int) -> datetime:
    """So many days before now; the beginning of time where there are not so many."""
    try:
        return datetime.now(UTC) - timedelta(days=days)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def is_trained_below(root: Path) -> bool:
    """Whether a process works in an unfinished folder, or at a search of `overnight tune`: it reads prepared sessions."""
    places = [*(root / UNFINISHED).glob("[!.]*"), *(root / "tuning").glob("*/lock")]
    return any(is_held(place) for place in places)


def is_held(place: Path) -> bool:
    """Whether a process has a lock on a folder or a file."""
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def is_left(folder: Path, since: datetime) -> bool:
    """Whether no process works in an unfinished folder and nothing in it was touched since, or a prune was killed in it."""
    if folder.is_symlink():
        return _touched(folder) < since.timestamp()
    if (folder / OPEN).exists():
        since = min(since, days_ago(OPEN_DAYS))
    if not folder.exists() or is_held(folder):
        return False
    return folder.name.endswith(GOING) or max(map(_touched, (folder, *folder.rglob("*")))) < since.timestamp()


def _touched(path: Path) -> float:
    """When a file was written last, of a link the link itself; 0 where it is gone by now."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
