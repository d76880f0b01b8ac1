"""Settings searched for within a budget: trials chosen by validation, kept in SQLite, gone on with by the same command.

    first            the settings as they are given: what the rest are compared with
    then, by turns   a preset as it is published, the smallest first, and a step or two from the best so far
    then             Optuna's TPE over the whole space (`flows.settings.space`)

A trial trains a model as `overnight train` does, but for the newest training day, which it is then measured on, whole, by the
metric of promotion (`training.validation_days`: days). Where there are no days it is worth its validation metric. The test is
never looked at. One that is significantly behind the rest is cut short (`flows.behind`). Models of trials are not kept.

    <root>/tuning/<id>/study.db      the trials (Optuna)
    <root>/tuning/<id>/table.md      the same as a table
    <root>/tuning/<id>/unfinished    checkpoints of a trial that was stopped, which the next run goes on with
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from flows import stages
from flows.folds import OnProgress
from flows.night_lock import alone
from flows.reports.tuning import DEFAULT, Trial, best_of, seconds_spent, table_of
from flows.search import Search, duration
from flows.settings.layers import Layer
from flows.settings.settings import Settings, resolve
from flows.settings.space import Beginning
from flows.study import opened, require_optuna
from modeling.presets.by_shape import Shape
from modeling.stages.identity import code_of_training, content_of, selection_of
from schemas import plugins
from schemas.artifacts import Manifest, identify
from schemas.closure import code_of
from schemas.errors import InputError

ROOT = Path(__file__).parents[1]
TUNING, TABLE = "tuning", "table.md"


@dataclass(frozen=True)
class Outcome:
    """What came of a search: all trials, and the best's settings as `defaults` of the dataset (none for the default)."""

    trials: list[Trial]
    defaults: Layer
    folder: Path


def tune(
    settings: Settings,
    budget: float,
    presets: tuple[str, ...],
    progress: OnProgress = print,
    *,
    began: float | None = None,
    most: int | None = None,
) -> Outcome:
    """Try settings until `budget` seconds are spent or `most` trials made, those of earlier runs of the same search included.

    This run's seconds count from `began` (of `time.monotonic`; else now).

    `presets` are tried next to the settings as they are given. Other sessions, settings, presets or code of training are
    another search.

    Raises:
        InputError: for settings that do not fit, or that no model can be trained or validated with; when another process is
            at the same search.
    """
    began = time.monotonic() if began is None else began
    require_optuna()
    _check(settings)
    with alone(settings, "preparation", progress):
        sessions = stages.prepare(settings, progress)
    beginnings = _beginnings(settings, sessions, presets, progress)
    folder = settings.artifacts.root / TUNING / _identity(settings, sessions, beginnings)
    with opened(folder, len(beginnings)) as study:
        search = Search(settings, sessions, beginnings, study, folder, progress)
        spent = seconds_spent(search.trials())
        if spent >= budget:
            progress(f"The budget was spent before ({duration(spent)}): a larger --budget goes on.")
        try:
            search.run(began + budget - spent, most)
        finally:
            trials = search.trials()
            (folder / TABLE).write_text(table_of(trials))
    best = best_of(trials)
    return Outcome(trials, search.defaults(best) if best and not best.is_default else {}, folder)


def _check(settings: Settings) -> None:
    if settings.training.start_from:
        raise InputError(
            f"training.start_from {settings.training.start_from}: tune compares trainings from scratch. Leave it out."
        )
    if settings.training.devices > 1:
        raise InputError(f"training.devices {settings.training.devices}: tune trains in one process. Leave it out.")
    if settings.data.redo:
        raise InputError(f"tune takes no --redo, got {settings.data.redo}. Use `overnight prepare --redo` first.")


def _identity(settings: Settings, sessions: Manifest, beginnings: dict[str, Beginning]) -> str:
    """What names a search: the sessions, where it may begin, the space, and the code that trains."""
    return identify(
        code=code_of(
            ROOT,
            ("flows.settings.space", "modeling.stages.measure"),
            alone=(__name__, "flows.behind", "flows.search", "flows.study"),
        ),
        parents=(sessions.name,),
        goal=settings.goal.model_dump(),
        split=(selection_of(sessions, settings.evaluation.split), content_of(settings.evaluation.split)),
        beginnings={
            name: (beginning.model.model_dump(), beginning.training.model_dump(), sorted(beginning.fixed))
            for name, beginning in beginnings.items()
        },
        training={name: code_of_training(beginning.model) for name, beginning in beginnings.items()},
        made_with={name: plugins.contents(beginning.model.parts) for name, beginning in beginnings.items()},
    )


def _beginnings(
    settings: Settings, sessions: Manifest, presets: tuple[str, ...], progress: OnProgress
) -> dict[str, Beginning]:
    """By name, where the search may begin: the settings as they are given, then presets that go with them, smallest first."""
    shape, made_of = Shape.of(sessions), dict[str, Beginning]()
    for name in (DEFAULT, *presets):
        preset = settings.preset if name == DEFAULT else name
        try:
            made = resolve(settings.data, preset, settings.given)
            made_of[name] = Beginning.of(made.model, made.training, shape, settings.given)
        except InputError as error:
            if name == DEFAULT:
                raise
            progress(f"Preset {name} does not go with these settings and is left out: {error}")
    return dict(sorted(made_of.items(), key=lambda entry: (entry[0] != DEFAULT, entry[1].size)))
