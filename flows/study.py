"""A study of Optuna in a folder of its own: kept in SQLite, one process at a time, gone on with by whoever opens it next."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flows.reports.tuning import DEFAULT, Trial, best_of
from flows.settings.space import LOSS, SAME, Beginning, Steps, Value, near, suggest
from schemas.errors import InputError

if TYPE_CHECKING:
    import optuna

STUDY, LOCK = "study.db", "lock"
SEED = 17
PRESET = "preset"
FREE = 6  # trials near the best, in addition to one a preset, before TPE takes over


def require_optuna() -> None:
    """
    Raises:
        InputError: when it is not installed.
    """
    if find_spec("optuna") is None:
        raise InputError("tune needs the package optuna, which is not installed here: pip install optuna.")


@contextmanager
def opened(folder: Path, num_beginnings: int) -> Iterator[optuna.Study]:
    """The study of a folder, which is made if it is not there, locked while the block runs.

    The sampler goes by scores once each of the beginnings was tried, and `FREE` more. Trials that were running when a process
    was killed are ended: they are gone on with once, and fail if that is killed as well.

    Raises:
        InputError: when another process has it open, or its file cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"Another process is at this search ({folder}): wait for it or stop it.") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parts of the sampler are called experimental, each time anew
            yield _open(folder / STUDY, num_beginnings + FREE)
    finally:
        os.close(lock)


def _open(file: Path, random_trials: int) -> optuna.Study:
    import optuna

    logging.getLogger("alembic").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            storage=_storage(file), study_name="tune", direction="maximize", load_if_exists=True
        )
    except Exception as error:  # what a damaged file raises differs by where it is damaged
        raise InputError(f"{file} cannot be read as a study ({error}). Move it away to begin anew.") from error
    study.sampler = optuna.samplers.TPESampler(
        seed=SEED + len(study.trials), n_startup_trials=random_trials, multivariate=True, group=True
    )
    study.pruner = optuna.pruners.NopPruner()  # what is cut short is for `flows.behind` to say
    for left in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        trial, continues = optuna.trial.Trial(study, left._trial_id), left.user_attrs.get("continues")
        if continues is not None and not study.trials[continues].user_attrs.get("paused"):
            trial.set_user_attr("error", "its process was killed, twice: it may need more memory than there is")
        tell(trial, "FAIL")
    return study


def _storage(file: Path) -> optuna.storages.RDBStorage:
    """SQLite in a file of any name: one with ? or # in it would be another one as a URL."""
    import optuna
    from sqlalchemy.pool import NullPool

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=60)

    return optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": NullPool})


def plan(study: optuna.Study, beginnings: dict[str, Beginning], trials: list[Trial]) -> None:
    """Say what is tried next, where that is not for the sampler to say: what was stopped, a preset, or near the best."""
    if any(trial.state == "WAITING" for trial in trials):
        return
    continued = {trial.continues for trial in trials}
    stopped = [trial for trial in trials if trial.stopped and trial.number not in continued]
    if stopped:
        last = stopped[-1]
        about = {"continues": last.number, "before": last.before + last.seconds, "start": last.start}
        study.enqueue_trial(last.params, user_attrs=about)
        return
    done, best = [trial for trial in trials if trial.done], best_of(trials)
    starts = [start for start in beginnings if start not in {trial.start for trial in done}]
    if starts and (starts[0] == DEFAULT or best is None or len(done) % 2):
        study.enqueue_trial({PRESET: starts[0], **beginnings[starts[0]].neutral()}, user_attrs={"start": starts[0]})
    elif best and len(done) < len(beginnings) + FREE:
        steps = {key: step for key, step in best.params.items() if key != PRESET}
        space = beginnings[best.preset].settings(str(steps.get(LOSS.key, SAME)))
        study.enqueue_trial({PRESET: best.preset, **near(space, steps, random.Random(SEED + len(trials)))})


def ask(study: optuna.Study, beginnings: dict[str, Beginning]) -> optuna.Trial | None:
    """The next trial, with the preset and the changes that it stands for; None for settings that were tried before."""
    before = {row.what for row in map(Trial.of, study.get_trials(deepcopy=False)) if row.done}
    trial = study.ask()
    preset = str(trial.suggest_categorical(PRESET, list(beginnings)))
    beginning = beginnings[preset]
    steps: Steps = suggest(
        beginning.settings,
        lambda key, choices: cast(Value, trial.suggest_categorical(key, choices)),
        lambda key, low, high: trial.suggest_float(key, low, high, log=True),
    )
    trial.set_user_attr("preset", preset)
    trial.set_user_attr("changes", beginning.changes(steps))
    row = Trial(trial.number, "RUNNING", preset, trial.user_attrs["changes"])
    if row.what not in before:
        return trial
    tell(trial, "FAIL", ignored=True)
    return None


def tell(trial: optuna.Trial, state: str, score: float | None = None, **about: Any) -> None:
    """End a trial: COMPLETE with its score, PRUNED or FAIL; with what else is to be kept of it."""
    from optuna.trial import TrialState

    for name, given in about.items():
        trial.set_user_attr(name, given)
    trial.study.tell(trial, score, state=TrialState[state])
