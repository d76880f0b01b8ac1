"""A journal: records are appended by one process, and are there after it was killed.

    4f1c2d3e {"event_type": "click", "item_id": "lamp-0012", ...}

A line is the CRC-32 of its JSON, the JSON, and a line end: a record is whole or it is not there. The process holds the file by
`flock` as long as it lives, so that what a killed one left is recognised by its being free.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.writing import sync

ENDING = ".journal"
Record = dict[str, Any]


@dataclass(frozen=True)
class Sealed:
    """A journal that nothing is appended to any more; `descriptor` holds it until `release`."""

    path: Path
    descriptor: int

    @property
    def kind(self) -> str:
        """events or answers."""
        return self.path.name.split(".")[1]

    @property
    def name(self) -> str:
        """What its parts are called."""
        return self.path.name.partition(".")[0]

    def release(self, *, remove: bool) -> None:
        """Let go of it; with `remove` it is gone."""
        if remove:
            self.path.unlink(missing_ok=True)
            sync(self.path.parent)
        os.close(self.descriptor)


class Journal:
    """The journal of one kind that this process appends to; a new file after each `seal`. Threads may share it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder, kind
        self._lock = threading.Lock()
        self._sealed: Sealed | None = None
        self._torn = b""  # ends a line of which a part is there, and could not be taken back
        self.size = 0
        self.began = datetime.now(UTC)

    def append(self, records: Iterable[Record], *, sync: bool) -> None:
        """Append records; with `sync` they survive a power cut when this returns, else the end of the process.

        Raises:
            OSError: when they cannot be written; then none is there, unless they cannot be taken back either.
        """
        lines = b"".join(map(line_of, records))
        with self._lock:
            current = self._sealed or self._begin()
            lines = self._torn + lines
            try:
                _write(current.descriptor, lines)
                if sync:
                    os.fdatasync(current.descriptor)
            except OSError:
                self._take_back(current.descriptor)
                raise
            self.size += len(lines)
            self._torn = b""

    def sync(self) -> None:
        """Have what was appended survive a power cut."""
        with self._lock:
            held = os.dup(self._sealed.descriptor) if self._sealed else None
        if held is not None:
            try:
                os.fdatasync(held)  # nobody who appends waits for it
            finally:
                os.close(held)

    def seal(self) -> Sealed | None:
        """End the file; what comes is appended to another. None where nothing was appended."""
        with self._lock:
            done, self._sealed, self.size, self._torn = self._sealed, None, 0, b""
        return done

    def _take_back(self, descriptor: int) -> None:
        """What was written in vain; where that fails the next record begins a line of its own."""
        try:
            os.ftruncate(descriptor, self.size)
        except OSError:
            self.size, self._torn = os.fstat(descriptor).st_size, b"\n"

    def _begin(self) -> Sealed:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            now = datetime.now(UTC)
            path = self._folder / f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.{self._kind}{ENDING}"
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
            if _hold(path, descriptor):
                break
            os.close(descriptor)  # another process took it for one that was left, and has removed it
        try:
            sync(self._folder)
        except OSError:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        self._sealed, self.size, self.began = Sealed(path, descriptor), 0, now
        return self._sealed


def take(path: Path) -> Sealed | None:
    """A journal that a process has left; None where one holds it, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    if _hold(path, descriptor):
        return Sealed(path, descriptor)
    os.close(descriptor)
    return None


def line_of(record: Record) -> bytes:
    """A record as a line."""
    # Halves of surrogate pairs, which JSON may hold and no table can, become question marks.
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode("utf8", "replace")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read(path: Path) -> tuple[list[Record], int]:
    """The records of a journal, and how many lines are damaged. A last line without an end was never acknowledged."""
    *lines, _ = path.read_bytes().split(b"\n")
    records = [record for line in lines if (record := _record(line)) is not None]
    return records, len(lines) - len(records)


def _record(line: bytes) -> Record | None:
    code, _, text = line.partition(b" ")
    try:
        if len(code) != 8 or int(code, 16) != zlib.crc32(text):
            return None
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _hold(path: Path, descriptor: int) -> bool:
    """Whether the open file is now held by this process, and still the one of that name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
