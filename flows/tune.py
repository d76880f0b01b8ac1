"""Settings searched for within a budget: trials chosen by validation, kept in SQLite, gone on with by the same command.

    first            the settings as they are given: what the rest are compared with
    then, by turns   a preset as it is published, the smallest first, and a step or two from the best so far
    then             Optuna's TPE over the whole space (`flows.settings.space`)

A trial trains a model as `overnight train` does, on the training days alone, and is worth its validation metric: the test is
never looked at. One that is behind the median of the rest at the same epoch is cut short. Models of trials are not kept.

    <root>/tuning/<id>/study.db      the trials (Optuna)
    <root>/tuning/<id>/table.md      the same as a table
    <root>/tuning/<id>/unfinished    checkpoints of a trial that was stopped, which the next run goes on with
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import stages
from flows.reports.tuning import DEFAULT, Trial, best_of, line_of, seconds_spent, table_of
from flows.settings.defaults import defaults_of
from flows.settings.layers import Layer, over
from flows.settings.settings import Settings, resolve
from flows.settings.space import Beginning
from flows.study import ask, opened, plan, tell
from modeling.config import LOWER_IS_BETTER
from modeling.presets.by_shape import Shape
from modeling.stages.identity import TRAINING
from schemas.artifacts import Artifacts, Manifest, identify
from schemas.closure import code_of
from schemas.errors import DivergedError, InputError
from schemas.progress import Progress, TrainingProgress

if TYPE_CHECKING:
    import optuna

ROOT = Path(__file__).parents[1]
TUNING, TABLE = "tuning", "table.md"
MOST_REPEATS = 30  # of settings that were tried, in a row: then there is nothing left
MOST_FAILURES = 10  # in a row: then it is not the settings
OnProgress = Callable[[Progress | str], object]


class OutOfTimeError(Exception):
    """The budget is spent."""


class BehindError(Exception):
    """A trial is behind the median of the rest."""


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
    began: float | None = None,
) -> Outcome:
    """Try settings until `budget` seconds are spent, those of earlier runs of the same search among them.

    This run's count from `began` (of `time.monotonic`; else now).

    `presets` are tried next to the settings as they are given. Other sessions, settings, presets or code of training are
    another search.

    Raises:
        InputError: for settings that do not fit, or that no model can be trained or validated with; when another process is
            at the same search.
    """
    began = time.monotonic() if began is None else began
    _check(settings)
    sessions = stages.prepare(settings, progress)
    folder = settings.artifacts.root / TUNING / _identity(settings, sessions, presets)
    beginnings = _beginnings(settings, sessions, presets, progress)
    with opened(folder, len(beginnings)) as study:
        search = Search(settings, sessions, beginnings, study, folder, progress)
        spent = seconds_spent(search.trials())
        if spent >= budget:
            progress(f"The budget was spent before ({in_words(spent)}): a larger --budget goes on.")
        try:
            search.run(began + budget - spent)
        finally:
            trials = search.trials()
            (folder / TABLE).write_text(table_of(trials))
    best = best_of(trials)
    return Outcome(trials, search.defaults(best) if best and not best.is_default else {}, folder)


def in_words(seconds: float) -> str:
    """Seconds as people read them: 45 s, 12.5 min, 3.0 h."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _check(settings: Settings) -> None:
    if settings.training.start_from:
        raise InputError(
            f"training.start_from {settings.training.start_from}: tune compares trainings from scratch. Leave it out."
        )
    if settings.training.devices > 1:
        raise InputError(f"training.devices {settings.training.devices}: tune trains in one process. Leave it out.")
    if settings.data.redo:
        raise InputError(f"tune takes no --redo, got {settings.data.redo}. Use `overnight prepare --redo` first.")


def _identity(settings: Settings, sessions: Manifest, presets: tuple[str, ...]) -> str:
    return identify(
        code=code_of(ROOT, (*TRAINING, "flows.settings.space"), alone=(__name__, "flows.study")),
        parents=(sessions.name,),
        model=settings.model.model_dump(),
        training=settings.training.model_dump(),
        given=settings.given,
        presets=presets,
    )


def _beginnings(
    settings: Settings, sessions: Manifest, presets: tuple[str, ...], progress: OnProgress
) -> dict[str, Beginning]:
    """By name, where the search may begin: the settings as they are given, then presets that go with them, smallest first."""
    shape, found = Shape.of(sessions), dict[str, Beginning]()
    for name in (DEFAULT, *presets):
        preset = settings.preset if name == DEFAULT else name
        try:
            made = resolve(settings.data, preset, settings.given)
            found[name] = Beginning.of(made.model, made.training, shape, settings.given)
        except InputError as error:
            if name == DEFAULT:
                raise
            progress(f"Preset {name} does not go with these settings and is left out: {error}")
    return dict(sorted(found.items(), key=lambda entry: (entry[0] != DEFAULT, entry[1].size)))


class Search:
    """One search under way: what it may begin at, its study, and the folder of its checkpoints."""

    def __init__(
        self,
        settings: Settings,
        sessions: Manifest,
        beginnings: dict[str, Beginning],
        study: optuna.Study,
        folder: Path,
        progress: OnProgress,
    ) -> None:
        self.settings, self.sessions, self.beginnings = settings, sessions, beginnings
        self.study, self.folder, self.progress = study, folder, progress

    def trials(self) -> list[Trial]:
        """All trials so far."""
        return [Trial.of(trial) for trial in self.study.get_trials(deepcopy=False)]

    def run(self, deadline: float) -> None:
        """Trials until the deadline (of `time.monotonic`), or until there is nothing left to try."""
        repeats = failures = 0
        while time.monotonic() < deadline:
            plan(self.study, self.beginnings, self.trials())
            trial = ask(self.study, self.beginnings)
            if trial is None:
                repeats += 1
            else:
                repeats, failures = 0, failures + 1 if self._try(trial, deadline) == "failed" else 0
            if repeats == MOST_REPEATS:
                self.progress("There is nothing left to try in this space.")
                return
            if failures == MOST_FAILURES:
                self.progress(f"{failures} trials failed in a row, so no more are tried.")
                return

    def _try(self, trial: optuna.Trial, deadline: float) -> str:
        """Train what a trial stands for and write down what came of it; returns that in words."""
        begun, left = time.monotonic(), deadline - time.monotonic()
        self.progress(f"Trial {trial.number} ({in_words(left)} left): {self._row(trial).what}")
        state, score, about, kept = "FAIL", None, dict[str, Any](), False

        def watch(report: Progress | str) -> None:
            if isinstance(report, TrainingProgress):
                self.progress(replace(report, message=""))
                _judge(trial, report, time.monotonic() - begun)
            if time.monotonic() > deadline:
                raise OutOfTimeError

        try:
            state, score, about = "COMPLETE", *self._train(trial, watch)
        except OutOfTimeError:
            kept = True
        except BehindError:
            state = "PRUNED"
        except InputError as error:
            if trial.user_attrs.get("start") == DEFAULT and not isinstance(error, DivergedError):
                tell(trial, "FAIL", ignored=True)
                raise  # nothing else could be trained either
            about = {"error": str(error)}
        except Exception as error:  # a trial may fail in any way: it is a row, not the end
            about = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        tell(trial, state, score, **about, seconds=time.monotonic() - begun)
        self._clear(keep_checkpoints=kept)
        row = self._row(trial)
        self.progress(line_of(row, best_of(self.trials())))
        return row.outcome

    def _train(self, trial: optuna.Trial, watch: OnProgress) -> tuple[float, dict[str, Any]]:
        """The score of a trial, and what else is known of it."""
        from modeling.stages import train

        start, changes = trial.user_attrs["preset"], trial.user_attrs["changes"]
        made = resolve(self.settings.data, self._preset(start), self._layer(start, changes))
        model = train(Artifacts(self.folder), self.sessions, made.model, made.training, watch)
        metric = model.facts["goal"]
        value = model.facts[f"validation_{metric}"]
        if value is None:
            raise InputError(
                f"There is no validation case with a {metric}, so there is nothing to choose by: more days or more sessions a "
                "day are needed."
            )
        metrics = {before.metric for before in self.trials() if before.metric}
        if metrics - {metric}:
            raise InputError(f"It is validated by {metric}, the rest by {', '.join(sorted(metrics))}.")
        about = {"metric": metric, "value": value, "cases": model.facts["validation_cases"]}
        return -value if _is_error(metric) else value, about

    def _preset(self, start: str) -> str | None:
        return self.settings.preset if start == DEFAULT else start

    def _layer(self, start: str, changes: dict[str, Any]) -> Layer:
        return over(self.settings.given, self.beginnings[start].layer(changes))

    def _row(self, trial: optuna.Trial) -> Trial:
        return self.trials()[trial.number]

    def _clear(self, *, keep_checkpoints: bool) -> None:
        """What a trial leaves on disk: its model, and its checkpoints unless it is to be gone on with."""
        shutil.rmtree(self.folder / "models", ignore_errors=True)
        if not keep_checkpoints:
            shutil.rmtree(self.folder / "unfinished", ignore_errors=True)

    def defaults(self, trial: Trial) -> Layer:
        """The settings of a trial as the dataset's `defaults`: with them nothing else need be given."""
        return defaults_of(self.settings, self._preset(trial.preset), self._layer(trial.preset, trial.changes))


def _judge(trial: optuna.Trial, report: TrainingProgress, seconds: float) -> None:
    """Hand a validation to the study, and cut a trial short that is behind; never the default, nor one that is done."""
    if not report.message or report.validation is None or report.done >= report.total:
        return
    trial.set_user_attr("seconds", seconds)
    trial.set_user_attr("metric", report.metric)
    trial.set_user_attr("value", report.validation)
    trial.report(-report.validation if _is_error(report.metric) else report.validation, int(report.epoch))
    if trial.user_attrs.get("start") != DEFAULT and trial.should_prune():
        raise BehindError


def _is_error(metric: str) -> bool:
    return metric.rpartition("/")[2] in LOWER_IS_BETTER
