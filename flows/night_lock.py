"""One writer of days, models and reports below a root: commands and flows take the lock of the root here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from flows.settings.settings import Settings
from schemas import lock
from schemas.artifacts import Artifacts, identify

OPEN = "backtest.json"  # in the folder of a backtest that is under way or was stopped


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


@contextmanager
def may_go_on(artifacts: Artifacts, backtest: dict[str, Any]) -> Iterator[None]:
    """While the block lasts, and after it was stopped in it, what this backtest made is kept for it to go on.

    Raises:
        InputError: when another process is at the same one.
    """
    with artifacts.unfinished(f"backtest-{identify(code='', **backtest)}") as folder:
        marker = folder / OPEN
        if not marker.exists():  # its time says since when
            marker.write_text(json.dumps(backtest, default=str) + "\n")
        yield


def is_under_way(root: Path, run: str) -> bool:
    """Whether a process of this machine is that flow run now and writes below the root."""
    owner = lock.owner_of(root)
    return owner is not None and owner.run == run and owner.is_here
