"""Whether runs have a Prefect server that people look at, and where that of `overnight serve` is."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from flows.environment import PATIENT, QUIET

HOME = "PREFECT_HOME"
SERVED = "served-at"  # below $PREFECT_HOME: the URL, in a file that is locked while the server runs
OF_PREFECT = "PREFECT_"
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
def serving_at(url: str) -> Iterator[None]:
    """While the block lasts, runs of this $PREFECT_HOME find the server at `url` by themselves."""
    file = Path(os.environ[HOME]) / SERVED
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as kept:  # not emptied before it is ours
        with contextlib.suppress(BlockingIOError):  # of two servers, the first
            fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept.truncate(0)
            kept.write(url)
            kept.flush()
        yield


def served_at() -> str | None:
    """The URL of the server that `overnight serve` runs for this $PREFECT_HOME; None when it does not run."""
    try:
        with (Path(os.environ[HOME]) / SERVED).open() as kept:
            try:
                fcntl.flock(kept, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # held by the process that serves, until it ends, however it ends
                return kept.read().strip() or None
    except (KeyError, OSError):
        pass
    return None


def _holds(file: Path, word: str) -> bool:
    try:
        return file.exists() and word in file.read_text().lower()
    except (OSError, ValueError):
        return True
