"""The journals of a service: requests that come at the same time share one sync, and journals become Parquet in time."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import queue
import re
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from modeling.service.tracking.journal import Journal, Record, Sealed
from modeling.service.tracking.parts import ANSWERS, EVENTS, JOURNALS, make_parts, recover
from schemas.errors import InputError
from schemas.writing import sync

TRACKED, SALT = "tracked", "salt"
SECOND = "second.json"  # the second of two models that are compared
FEWEST_SALT = 32  # bytes
MOST_BYTES = 16 * 2**20  # of a journal, so that making parts of it takes little memory
MOST_TOGETHER = 256  # requests that share a sync
log = logging.getLogger("overnight.api")


class Store:
    """What was shown and clicked for one dataset, below `folder`. Several processes may write there."""

    def __init__(self, folder: Path, users: str = "hashed", part_seconds: float = 300.0) -> None:
        """`users` is hashed, plain or none; a journal becomes Parquet after `part_seconds`."""
        self.folder, self.users, self._seconds = folder, users, part_seconds
        self._events, self._answers = (Journal(folder / JOURNALS, kind) for kind in (EVENTS, ANSWERS))
        self._queue: queue.Queue[tuple[Sequence[Record], Future[None]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="track", daemon=True)
        self._left: list[Sealed] = []  # sealed, and not parts yet
        self._tidying = threading.Lock()
        self._salt = b""
        self._began = False

    def start(self) -> None:
        """Take up what killed processes left, and begin; nothing where it has begun.

        Raises:
            InputError: where nothing can be written.
        """
        if self._began:
            return
        try:
            self._salt = _salt_of(self.folder) if self.users == "hashed" else b""
            if found := recover(self.folder):
                log.info("%d records of services that were killed are taken up", found)
        except OSError as error:
            raise InputError(f"{self.folder}: what is tracked cannot be written ({error.strerror}).") from None
        self._began = True
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and make parts of it."""
        self._queue.put(None)
        self._thread.join()
        with suppress(OSError):  # journals stay, and are taken up by the next start
            self.tidy(now=True)

    def name_of(self, given: object) -> str | None:
        """An id of a user or session as it is written."""
        if given is None or self.users == "none":
            return None
        if self.users == "plain":
            return str(given)
        return hmac.new(self._salt, str(given).encode("utf8", "replace"), hashlib.sha256).hexdigest()[:32]

    @property
    def waiting(self) -> int:
        """How many requests wait for the disk."""
        return self._queue.qsize()

    def submit(self, events: Sequence[Record]) -> Future[None]:
        """Done when the events are on the disk; fails with OSError where they cannot be written."""
        done: Future[None] = Future()
        self._queue.put((events, done))
        return done

    def note(self, answers: Sequence[Record]) -> None:
        """Write what was answered: a kill of the process does not lose it, and nobody waits for the disk.

        Raises:
            OSError: when it cannot be written.
        """
        self._answers.append(answers, sync=False)

    def tidy(self, *, now: bool = False) -> bool:
        """Sync answers; make parts of journals that are old or large, or with `now` of all, and of those that were left.

        Returns whether parts were made.

        Raises:
            OSError: when they cannot be written; the journals stay.
        """
        with self._tidying:
            self._answers.sync()
            for journal in (self._events, self._answers):
                age = (datetime.now(UTC) - journal.began).total_seconds()
                if now or age >= self._seconds or journal.size >= MOST_BYTES:
                    self._left += filter(None, [journal.seal()])
            made = len(self._left)
            while self._left:
                make_parts(self.folder, self._left[0])
                self._left.pop(0)
            return bool(recover(self.folder)) or bool(made)

    def _work(self) -> None:
        ended = False
        while not ended:
            waiting = [self._queue.get()]
            while len(waiting) < MOST_TOGETHER:
                try:
                    waiting.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            ended = None in waiting
            jobs = [job for job in waiting if job is not None and job[1].set_running_or_notify_cancel()]
            try:
                self._events.append((event for events, _ in jobs for event in events), sync=True)
            except Exception as error:
                log.error("events could not be written: %s", error)
                for _, done in jobs:
                    done.set_exception(error)
            else:
                for _, done in jobs:
                    done.set_result(None)


def tracked_folder(root: Path, dataset: str) -> Path:
    """What was shown and clicked for a dataset."""
    return root.expanduser() / TRACKED / dataset


def second_models(root: Path) -> set[str]:
    """The models that are compared with those in service, models/1f2e.

    Raises:
        InputError: where it cannot be read which: a model that answers users may be named there.
    """
    named: set[str] = set()
    for path in (root / TRACKED).glob(f"*/{SECOND}"):
        try:
            named |= set(re.findall(r"models/[0-9a-f]+", path.read_text()))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} cannot be read ({error}). Start `overnight api` again, which writes it, or remove it."
            ) from None
    return named


def _salt_of(folder: Path) -> bytes:
    """The salt of a folder, the same for every process, made once.

    Raises:
        InputError: where it is there and too short to be one.
    """
    file = folder / SALT
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        draft = folder / f".{SALT}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as written:
            written.write(secrets.token_hex(32).encode())
            written.flush()
            os.fsync(written.fileno())
        with suppress(FileExistsError):  # another process was first
            os.link(draft, file)
        draft.unlink()
        sync(folder)
    salt = file.read_bytes()
    if len(salt) < FEWEST_SALT:
        raise InputError(
            f"{file} holds {len(salt)} bytes; {FEWEST_SALT} are needed, so that no name can be guessed from its hash. "
            "Restore it from a backup, or remove it: another is made, by which all users have new names."
        )
    return salt
