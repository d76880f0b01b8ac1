"""Files that are replaced in one step, drafts that are locked while their process lives; both outlive a crash."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from glob import escape
from pathlib import Path

from schemas.lock import require_held
from schemas.machine import room_in


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file in one step: after a crash it is the old one or the new one."""

    def write(temporary: Path) -> None:
        temporary.write_text(text)

    replace_file(path, write)
    sync(path.parent)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a draft in the same folder as `path`, then rename it: a crash leaves the old file or the new one.

    Raises:
        OSError: where the disk is full; also where a library says something else then.
        LostLockError: when the lock of this process is another's by now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{escape(path.name)}.*"):
        if left.suffix[1:].isdecimal():  # not what an editor puts there
            remove_if_abandoned(left)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch()
    lock = lock_on(temporary)  # says that this process is alive
    try:
        with room_in(path.parent):
            write(temporary)
            sync(temporary)
        require_held()
        temporary.replace(path)
    except Exception:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)


def lock_on(folder: Path) -> int:
    """A lock on a folder or a file that its process holds until it closes it or dies; BlockingIOError when another holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def make_and_lock(folder: Path) -> int:
    """A lock as of `lock_on`, on a folder that is made if it is not there, also where another process removes it meanwhile."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = lock_on(folder)
            try:
                if os.path.samestat(os.fstat(lock), folder.stat()):
                    return lock
            except FileNotFoundError:
                pass
            os.close(lock)


def remove_if_abandoned(draft: Path) -> None:
    """Remove a draft, a folder or a file, whose process died; leave one that is being written."""
    try:
        lock = lock_on(draft)
    except (BlockingIOError, FileNotFoundError):
        return
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)
    os.close(lock)


def sync(path: Path) -> None:
    """What a file or a folder holds, to the disk: what was written outlives a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
