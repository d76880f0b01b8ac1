"""Whatever writes days, models and reports below a root does so alone: commands and flows take the lock of the root here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from flows.settings.settings import Settings
from schemas import lock


def alone(
    settings: Settings, what: str, say: Callable[[str], object], run: str = ""
) -> AbstractContextManager[lock.Hold]:
    """While the block lasts no other command or flow writes below the settings' root. `what` says who has it: "night of shop".

    Another one is waited for, with one line to `say`.

    Raises:
        InputError: when it has not ended after twelve hours.
    """
    return alone_in(settings.artifacts.root, f"{what} of {settings.dataset.name}", say, run)


def alone_in(root: Path, what: str, say: Callable[[str], object], run: str = "") -> AbstractContextManager[lock.Hold]:
    """`alone` for what has no settings."""
    return lock.holding(root, lock.NIGHT, what, say, run=run)


def is_under_way(root: Path, run: str) -> bool:
    """Whether a process of this machine is that flow run now and writes below the root."""
    owner = lock.owner_of(root)
    return owner is not None and owner.run == run and owner.is_here
