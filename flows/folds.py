"""Folds: the tests that models are compared on, each with the sessions that were there before it.

Where sessions are split by days, a fold is a day, and what trains for it is all days before it or a window of them. Where the
last item of each history is the test, that is the only fold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date

from flows import stages
from flows.settings.settings import Settings
from schemas.artifacts import Manifest
from schemas.errors import InputError
from schemas.progress import Progress

FOLDS = 3  # where none are asked for
LAST_ITEMS = "last items"
OnProgress = Callable[[Progress | str], object]


@dataclass(frozen=True)
class Fold:
    """One test: its name (a day, or `last items`), the settings of the night that ends there, and its sessions."""

    name: str
    settings: Settings
    sessions: Manifest


def folds_of(settings: Settings, count: int | None, window: int | None, progress: OnProgress) -> list[Fold]:
    """The newest `count` folds, oldest first; `window` is the number of days before each that are used (None: all).

    Raises:
        InputError: for more folds than there are days with a day before them, or more than one where there are no days.
    """
    if settings.dataset.split != "day":
        if window is not None or (count or 1) > 1:
            given = f"--folds {count}" if window is None else f"--window {window}"
            raise InputError(
                f"{given}: {settings.dataset.name} has the split {settings.dataset.split}, whose only fold is the last item of "
                "each history. Leave it out, or choose dataset.split=day."
            )
        return [Fold(LAST_ITEMS, settings, stages.prepare(settings, progress))]
    newest = stages.prepare(of_day(settings, settings.data.until, None), progress)
    days = sorted(day for day in newest.facts["days"] if day <= newest.facts["test_day"])
    if count is not None and count > len(days) - 1:
        raise InputError(
            f"--folds {count}: there are {len(days)} days with sessions, {days[0]} to {days[-1]}, and the first has none "
            f"before it. At most {len(days) - 1}."
        )
    used = None if window is None else window + 1  # the day itself is one of those used
    folds = []
    for day in days[1:][-(count or FOLDS) :]:
        today = of_day(settings, date.fromisoformat(day), used)
        folds.append(Fold(day, today, stages.prepare(today, quiet)))
    return folds


def of_day(settings: Settings, day: date | None, days: int | None) -> Settings:
    """The settings of the night whose test is `day` (None: the last full day), with so many days up to then (None: all)."""
    return replace(settings, data=settings.data.model_copy(update={"until": day, "days": days}))


def quiet(line: Progress | str) -> None:
    """Progress of what is finished already is not shown."""
