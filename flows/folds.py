"""Folds: the tests that models are compared on, each with the settings that train for it and measure on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from flows import stages
from flows.night_lock import alone
from flows.settings.settings import Settings
from modeling.config import SplitConfig
from schemas.artifacts import Manifest
from schemas.errors import parse
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


def _days(sessions: Manifest, split: SplitConfig) -> list[str]:
    """The days that folds are made of; none where the split has only one fold."""
    newest = sessions.facts["test_day"]
    if newest is None or split.rule not in (None, "day"):
        return []
    return [day for day in sessions.facts["days"] if day <= str(split.until or newest)]
