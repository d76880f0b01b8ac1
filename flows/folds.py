"""Folds: the tests that models are compared on, each with the settings that train for it and measure on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta

from flows import stages
from flows.night_lock import alone
from flows.settings.settings import Settings
from modeling.config import SplitConfig
from schemas.artifacts import Manifest
from schemas.errors import InputError, OutsideError, parse
from schemas.progress import Progress

FOLDS = 3  # where none are asked for, as far as there are days
OnProgress = Callable[[Progress | str], object]


@dataclass(frozen=True)
class Fold:
    """One test: its name (a day, or `leave_one_out`), settings whose split has this fold alone, and the sessions."""

    name: str
    settings: Settings
    sessions: Manifest


def folds_of(settings: Settings, count: int | None, window: int | None, progress: OnProgress) -> list[Fold]:
    """The newest `count` folds of the settings' split, oldest first; `window` is the number of days that train for each.

    None leaves what the split says; a split that says nothing has `FOLDS` folds, or as many as there are days for, and a
    training day before them. Preparation is done once: all folds read the same sessions.

    Raises:
        InputError: for fewer than one fold, more than there are days for, or folds and windows where a split has no days.
    """
    from modeling.splits import folds

    given = {"folds": count, "train_days": window}
    written = settings.evaluation.split.model_dump(exclude_unset=True)
    split = parse(SplitConfig, written | {key: value for key, value in given.items() if value is not None}, "folds")
    with alone(settings, "preparation", progress):
        sessions = stages.prepare(settings, progress)
    if count is None and split.folds == 1 and (days := _days(sessions, split)):
        split = split.model_copy(update={"folds": max(1, min(FOLDS, (len(days) - 1) // split.test_days))})
    of_folds = []
    for fold in folds(sessions, split):
        evaluation = settings.evaluation.model_copy(update={"split": fold.config})
        of_folds.append(Fold(fold.name, replace(settings, evaluation=evaluation), sessions))
    return of_folds


def nights_of(
    settings: Settings, first: date, last: date, window: int | None, progress: OnProgress
) -> tuple[list[Fold], list[str]]:
    """A fold for each day with test sessions from `first` to `last`, of what the night after it has; and the days without.

    Each day is prepared for itself, with `window` days before it (None: all): nothing of a later day is in it.

    Raises:
        InputError: for days in the wrong order or that are not in the data, a split that has no days, or no day with test
            sessions.
    """
    if settings.dataset.split != "day":
        raise InputError(
            f"{settings.dataset.name} has the split {settings.dataset.split}: a backtest goes by days (split: day)."
        )
    if first > last:
        raise InputError(f"--from {first} lies after --to {last}: give the first day, then the last.")
    progress(f"Preparing all days up to {last}.")
    try:
        begun = min(stages.prepare(_of_day(settings, last, None), progress).facts["days"])
    except OutsideError as error:
        raise InputError(
            f"--to {last} is outside the data, which run from {error.first} to {error.last}. A day is measured by its events: "
            f"give {error.last} or an earlier day."
        ) from None
    if str(first) <= begun:
        raise InputError(
            f"--from {first}: the data begin on {begun}, and a day is predicted by those before it. Give a later day."
        )
    nights, skipped = list[Fold](), list[str]()
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        of_day = _of_day(settings, day, window)
        sessions = stages.prepare(of_day, _quiet)
        if sessions.facts["test_day"] == str(day):
            nights.append(Fold(str(day), of_day, sessions))
        else:
            skipped.append(str(day))
    if not nights:
        raise InputError(f"From {first} to {last} there is no day with test sessions: {', '.join(skipped)}.")
    return nights, skipped


def _of_day(settings: Settings, day: date, window: int | None) -> Settings:
    """The settings of the night whose test is `day`, which is one of the days it reads."""
    data = settings.data.model_copy(update={"until": day, "days": None if window is None else window + 1})
    return replace(settings, data=data)


def _quiet(line: Progress | str) -> None:
    """Progress of what is finished already is not shown."""


def _days(sessions: Manifest, split: SplitConfig) -> list[str]:
    """The days that folds are made of; none where the split has only one fold."""
    newest = sessions.facts["test_day"]
    if newest is None or split.rule not in (None, "day"):
        return []
    return [day for day in sessions.facts["days"] if day <= str(split.until or newest)]
