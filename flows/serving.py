"""Whether runs have a Prefect server that people look at, and where that of `overnight serve` is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from flows.environment import PATIENT, QUIET
from schemas.errors import InputError

HOME = "PREFECT_HOME"
SERVED = "served-at"  # below $PREFECT_HOME: URL and process, in a file that is locked while the server runs
OF_PREFECT = "PREFECT_"
WAIT_SECONDS = 240  # for the processes of a server that was killed: they end by themselves
QUIET_SECONDS = 2
SETTINGS_FILES = {".env": "prefect_", "prefect.toml": "", "pyproject.toml": "tool.prefect"}
"""Where Prefect reads settings in the working folder, and what such a file holds then, in small letters."""


def only_temporary() -> bool:
    """Whether a flow would get a temporary server, which nobody looks at, now.

    Prefect itself is asked only where its settings may say something: its import takes a second.
    """
    ours = {*QUIET, *PATIENT, HOME}
    profiles = Path(os.environ.get(HOME, "~/.prefect")).expanduser() / "profiles.toml"
    said = any(name.upper().startswith(OF_PREFECT) and name not in ours for name in os.environ) or profiles.exists()
    if not said and not any(_holds(Path(name), word) for name, word in SETTINGS_FILES.items()):
        return served_at() is None
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED

    return not PREFECT_API_URL.value() and bool(PREFECT_SERVER_EPHEMERAL_ENABLED) and served_at() is None


@contextlib.contextmanager
def serving_at(url: str, say: Callable[[str], object] = print) -> Iterator[int]:
    """While the block lasts, runs of this $PREFECT_HOME find the server at `url` by themselves.

    Gives the descriptor that holds the place. A process that inherits it keeps the place until it ends, too: so a server that
    was killed is followed by another only when all it had started is gone, which is waited for.

    Raises:
        InputError: when another server holds the place and stays.
    """
    file = Path(os.environ[HOME]) / SERVED
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as kept:  # not emptied before it is ours
        _hold(kept, say)
        kept.truncate(0)
        kept.write(f"{url}\n{os.getpid()}\n")
        kept.flush()
        try:
            yield kept.fileno()
        finally:
            kept.truncate(0)


def _hold(kept: IO[str], say: Callable[[str], object]) -> None:
    start, quiet = time.monotonic(), True
    while True:
        try:
            fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - start
        else:
            return
        kept.seek(0)
        url, alive = _serves(kept.read())
        if alive or waited > WAIT_SECONDS:
            raise InputError(
                f"`overnight serve` runs already for {kept.name}{f', at {url}' if url else ''}. Stop it first, or give "
                "another --root."
            )
        if quiet and waited > QUIET_SECONDS:
            say(
                f"Waiting for what an earlier `overnight serve` started to end, for up to {WAIT_SECONDS // 60} minutes."
            )
            quiet = False
        time.sleep(0.2)


def _serves(text: str) -> tuple[str, bool]:
    """The URL that the file says, and whether the process that wrote it is there."""
    url, _, pid = text.strip().partition("\n")
    try:
        os.kill(int(pid), 0)
    except ValueError:
        return url, False
    except OSError as error:
        return url, isinstance(error, PermissionError)
    return url, True


def served_at() -> str | None:
    """The URL of the server that `overnight serve` runs for this $PREFECT_HOME; None when it does not run."""
    try:
        with (Path(os.environ[HOME]) / SERVED).open() as kept:
            try:
                fcntl.flock(kept, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # held by the process that serves, until it ends, however it ends
                url, alive = _serves(kept.read())
                return url if url and alive else None
    except (KeyError, OSError):
        pass
    return None


def _holds(file: Path, word: str) -> bool:
    try:
        return file.exists() and word in file.read_text().lower()
    except (OSError, ValueError):
        return True
