"""Progress of long work, in numbers: what is being done, how much of it is done, of how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report of progress.

    `phase` is the stage at work, such as `clean`. `done` of `total` units of it are finished; `total` 0 means that there is
    nothing to count, and `done == total > 0` that the phase is over. `message` is one line for people.
    """

    phase: str
    done: int = 0
    total: int = 0
    message: str = ""

    def __str__(self) -> str:
        """The line for a log."""
        return f"{self.phase}: {self.message}" if self.message and self.total else self.message or self.phase


Report = Callable[[Progress], object]
