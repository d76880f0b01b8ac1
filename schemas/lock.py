"""A lock on an artifact root: of nights, on one machine or several that share the disk, only one writes.

    <root>/locks/<name>/000000000042         who holds it: machine, process, what for
    <root>/locks/<name>/000000000042.beat    a number that grows while the holder lives
    <root>/locks/<name>/000000000042.free    it was given back

The highest number is the holder's token. It is taken by a hard link, which succeeds once on every file system, NFS included;
no lock of the operating system is relied on. A holder is gone when its process is (same machine, same start of it) or when its
beat has not changed for STALE_SECONDS by the clock of whoever waits: clocks are never compared. Before anything is put in its
place a holder calls `require_held`: one that was paused until the lock was another's writes nothing any more. What is written
carries the token.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from schemas import claims
from schemas.claims import DIGITS
from schemas.errors import InputError
from schemas.owner import Owner

FOLDER = "locks"
NIGHT, POINTERS = "night", "pointers"  # for all that prepares, trains and removes; for changes of the model in service
BEAT_SECONDS = 15.0
STALE_SECONDS = 180.0  # twelve beats: a machine that is as busy as that has other troubles
WAIT_SECONDS = {NIGHT: 12 * 3600.0, POINTERS: 300.0}
QUIET_SECONDS = 2.0  # nothing is said of a wait that is no longer


class LostLockError(RuntimeError):
    """The lock was taken over while this process was paused or cut off; it must not write any more."""


class Hold:
    """A lock that this process holds, until `release`."""

    def __init__(self, folder: Path, token: int, owner: Owner) -> None:
        self.folder, self.token, self.owner = folder, token, owner
        self.lost = ""
        self.depth = 1
        self._beats = 0
        self._beaten = _clock()
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._write_beat()
        threading.Thread(target=self._beat, daemon=True, name=f"lock {folder.name}").start()

    def check(self) -> None:
        """
        Raises:
            LostLockError: when it is another's by now.
        """
        if os.getpid() != self._pid:  # a fork: the parent beats
            self._require_newest()
            return
        with self._mutex:
            self._require_newest()
            if _clock() - self._beaten > STALE_SECONDS / 2:  # who waits may have found it stale: take it anew, or never
                self._take_anew()

    def release(self) -> None:
        """Give it back, if it is still held."""
        self._ended.set()
        with self._mutex:
            if not self.lost and claims.newest(self.folder) == self.token:
                claims.claim(self.folder, f"{self.token:0{DIGITS}}.free", "")

    def _require_newest(self) -> None:
        if not self.lost and (newest := claims.newest(self.folder)) != self.token:
            self.lost = _taken_over(self.folder, claims.owner_at(self.folder, newest))
        if self.lost:
            raise LostLockError(self.lost)

    def _take_anew(self) -> None:
        if claims.claim(self.folder, f"{self.token + 1:0{DIGITS}}", self.owner.model_dump_json()):
            self.token += 1
            self._write_beat()
            claims.clean(self.folder, self.token)
        self._require_newest()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self.check()
                with self._mutex:
                    self._write_beat()
            except LostLockError:
                return
            except OSError:  # the disk is away for a moment: `check` decides by the time since the last beat
                continue

    def _write_beat(self) -> None:
        began = _clock()
        self._beats += 1
        (self.folder / f"{self.token:0{DIGITS}}.beat").write_text(str(self._beats))
        self._beaten = began


class Lent(BaseModel):
    """A lock that another process holds and keeps alive, while this one works for it."""

    model_config = ConfigDict(extra="forbid")

    folder: Path
    token: int
    owner: Owner

    def check(self) -> None:
        """
        Raises:
            LostLockError: when its holder has lost it.
        """
        newest = claims.newest(self.folder)
        if newest != self.token:
            owner = claims.owner_at(self.folder, newest)
            if owner != self.owner:
                raise LostLockError(_taken_over(self.folder, owner))
            self.token = newest  # its holder was paused, and took it anew


HELD: dict[Path, Hold | Lent] = {}


@contextmanager
def holding(
    root: Path,
    name: str,
    what: str,
    say: Callable[[str], object] = print,
    *,
    wait_seconds: float | None = None,
    above: int = 0,
    run: str = "",
) -> Iterator[Hold]:
    """Hold a lock of a root while the block lasts; a process that holds it already goes on. `what` says what for,
    `run` in which flow run.

    While another has it, `say` gets one line and it is waited for. The token is above all before it, and above `above`.

    Raises:
        InputError: when another still has it after `wait_seconds` (None: as long as is usual for this lock).
    """
    folder = root.expanduser().resolve() / FOLDER / name
    if isinstance(held := HELD.get(folder), Hold) and held.owner.pid == os.getpid():
        held.depth += 1
    else:
        patience = WAIT_SECONDS[name] if wait_seconds is None else wait_seconds
        held = HELD[folder] = _take(folder, Owner.here(what, run), say, patience, above)
    try:
        yield held
    finally:
        held.depth -= 1
        if not held.depth:
            HELD.pop(folder, None)
            held.release()


def lend() -> tuple[Lent, ...]:
    """The locks that this process holds, for one that works for it."""
    return tuple(Lent(folder=folder, token=held.token, owner=held.owner) for folder, held in HELD.items())


@contextmanager
def borrowing(locks: tuple[Lent, ...]) -> Iterator[None]:
    """While the block lasts this process writes only as long as whoever lent these locks holds them."""
    before = dict(HELD)
    HELD.update({lent.folder: lent for lent in locks})
    try:
        yield
    finally:
        HELD.clear()
        HELD.update(before)


def require_held(root: Path | None = None) -> None:
    """To be called before anything takes its place below a root; without one, all locks of this process count.

    Raises:
        LostLockError: when a lock that this process took is another's by now.
    """
    for folder, held in list(HELD.items()):
        if root is None or folder.parents[1] == root:
            held.check()


def token_of(root: Path) -> int:
    """The token of the night that this process is on this root; 0 where it holds no lock."""
    held = HELD.get(root / FOLDER / NIGHT)
    return held.token if held else 0


def owner_of(root: Path, name: str = NIGHT) -> Owner | None:
    """Who holds a lock now and is not surely gone; None where nobody does."""
    folder = root.expanduser().resolve() / FOLDER / name
    newest = claims.newest(folder)
    owner = None if not newest or claims.is_free(folder, newest) else claims.owner_at(folder, newest)
    return None if owner is None or owner.is_dead else owner


def _take(folder: Path, owner: Owner, say: Callable[[str], object], patience: float, above: int) -> Hold:
    folder.mkdir(parents=True, exist_ok=True)
    begun, said, seen, changed = time.monotonic(), False, "", time.monotonic()
    while True:
        newest = claims.newest(folder)
        other = claims.owner_at(folder, newest) if newest and not claims.is_free(folder, newest) else None
        if (beat := claims.read(folder / f"{newest:0{DIGITS}}.beat")) and (now := f"{newest} {beat}") != seen:
            seen, changed = now, time.monotonic()
        stale = time.monotonic() - changed > STALE_SECONDS
        if newest == 0 or claims.is_free(folder, newest) or stale or (other and other.is_dead):
            token = max(newest, above) + 1
            if claims.claim(folder, f"{token:0{DIGITS}}", owner.model_dump_json()) and claims.newest(folder) == token:
                claims.clean(folder, token)
                return Hold(folder, token, owner)
            continue
        if time.monotonic() - begun > patience:
            raise InputError(
                f"{folder.parents[1]} is in use: {other or 'another process'} has the lock {folder}. Wait until it has ended, "
                "or stop it, then run this again."
            )
        if not said and time.monotonic() - begun > QUIET_SECONDS:
            say(f"Waiting for {other or 'another process'}, which writes to {folder.parents[1]}; Ctrl-C gives up.")
            said = True
        time.sleep(min(0.5, STALE_SECONDS / 10))


def _taken_over(folder: Path, owner: Owner | None) -> str:
    return (
        f"{folder}: this process was paused or cut off, and the lock was taken over by "
        f"{owner or 'a process that has ended'}. Nothing more is written; run it again, it goes on where it was."
    )


def _clock() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
