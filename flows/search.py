"""A search for settings under way: one trial after the other, each trained, watched and written down, until time is over."""

from __future__ import annotations

import shutil
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.behind import DIGITS, gains_at, is_behind, rest_at
from flows.folds import OnProgress
from flows.reports.tuning import DEFAULT, Trial, best_of, line_of
from flows.settings.defaults import defaults_of
from flows.settings.layers import Layer, over
from flows.settings.settings import Settings, resolve
from flows.settings.space import Beginning
from flows.study import ask, plan, tell
from modeling.config import LOWER_IS_BETTER
from schemas.artifacts import Artifacts, Manifest
from schemas.errors import DivergedError, InputError
from schemas.progress import Progress, TrainingProgress

if TYPE_CHECKING:
    import optuna

MOST_REPEATS = 30  # of settings that were tried, in a row: then there is nothing left
MOST_FAILURES = 10  # in a row: then it is not the settings


class OutOfTimeError(Exception):
    """The budget is spent."""


class BehindError(Exception):
    """A trial is significantly behind the median of the rest."""


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
        from modeling.splits import folds

        self.split = settings.evaluation.split
        chooser = folds(sessions, self.split)[-1].before(settings.training.validation_days)
        self.chooser = chooser.config if chooser else None
        self.study, self.folder, self.progress = study, folder, progress

    def trials(self) -> list[Trial]:
        """All trials so far."""
        return [Trial.of(trial) for trial in self.study.get_trials(deepcopy=False)]

    def run(self, deadline: float, most: int | None = None) -> None:
        """Trials until the deadline (of `time.monotonic`), until there are `most`, or until there is nothing left to try."""
        repeats = failures = 0
        while time.monotonic() < deadline and (most is None or sum(trial.done for trial in self.trials()) < most):
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
        self.progress(f"Trial {trial.number} ({duration(left)} left): {self._row(trial).what}")
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
            about, kept = {"paused": True}, True
        except BehindError:
            state = "PRUNED"
        except InputError as error:
            if trial.user_attrs.get("start") == DEFAULT and not isinstance(error, DivergedError):
                tell(trial, "FAIL", ignored=True)
                self._clear(keep_checkpoints=False)
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
        """The score of a trial, and what else is to be kept of it."""
        from modeling.stages import evaluate, train

        start, changes = trial.user_attrs["preset"], trial.user_attrs["changes"]
        made = resolve(self.settings.data, self._preset(start), self._layer(start, changes))
        artifacts, goal = Artifacts(self.folder), self.settings.goal
        model = train(artifacts, self.sessions, made.model, made.training, watch, self.chooser or self.split, goal)
        about: dict[str, Any]
        if self.chooser:
            only = {"split": self.chooser, "baselines": (), "lists": 0, "rules": False}
            config = self.settings.evaluation.model_copy(update=only)
            facts = evaluate(artifacts, model, self.sessions, config, watch).facts
            metric = goal.metric
            of_label = facts["labels"].get(metric.rpartition("/")[0], facts)
            value = facts["metrics"][facts["model"]].get(metric)
            about = {"metric": metric, "value": value, "cases": of_label["cases"], "on": str(self.chooser.until)}
        else:
            metric = model.facts["goal"]
            value = model.facts[f"validation_{metric}"]
            about = {"metric": metric, "value": value, "cases": model.facts["validation_cases"]}
        self._require(metric, value)
        return -value if _is_error(metric) else value, about

    def _require(self, metric: str, value: float | None) -> None:
        """Raise InputError for what trials cannot be compared by."""
        if value is None:
            raise InputError(
                f"There is no validation case with a {metric}, so there is nothing to choose by: more days or more sessions a "
                "day are needed."
            )
        metrics = {before.metric for before in self.trials() if before.metric}
        if metrics - {metric}:
            raise InputError(f"It is validated by {metric}, the rest by {', '.join(sorted(metrics))}.")

    def _preset(self, start: str) -> str | None:
        return self.settings.preset if start == DEFAULT else start

    def _layer(self, start: str, changes: dict[str, Any]) -> Layer:
        return over(self.settings.given, self.beginnings[start].layer(changes))

    def _row(self, trial: optuna.Trial) -> Trial:
        return self.trials()[trial.number]

    def _clear(self, *, keep_checkpoints: bool) -> None:
        """What a trial leaves on disk, but for checkpoints that it is to go on from."""
        for kind in ("models", "evaluations"):
            shutil.rmtree(self.folder / kind, ignore_errors=True)
        if not keep_checkpoints:
            shutil.rmtree(self.folder / "unfinished", ignore_errors=True)

    def defaults(self, trial: Trial) -> Layer:
        """The settings of a trial as the dataset's `defaults`: with them nothing else need be given."""
        return defaults_of(self.settings, self._preset(trial.preset), self._layer(trial.preset, trial.changes))


def _judge(trial: optuna.Trial, report: TrainingProgress, seconds: float) -> None:
    """Write down a validation, and cut a trial short that is significantly behind; never the default, nor one that is done."""
    if not report.message or report.validation is None or report.done >= report.total:
        return
    epoch, share = int(report.epoch), report.done / report.total
    trial.set_user_attr("seconds", seconds)
    trial.report(-report.validation if _is_error(report.metric) else report.validation, epoch)
    trial.set_user_attr(gains_at(epoch), [round(gain, DIGITS) for gain in report.gains])
    if trial.user_attrs.get("start") != DEFAULT and is_behind(report.gains, rest_at(trial.study, epoch), share):
        raise BehindError


def _is_error(metric: str) -> bool:
    return metric.rpartition("/")[2] in LOWER_IS_BETTER


def duration(seconds: float) -> str:
    """Seconds as people read them: 45 s, 12.5 min, 3.0 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
