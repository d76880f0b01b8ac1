"""Validation on what comes after: the newest training days are held out whole, and the model is trained again with them.

    choose = fit in random order without these days, validated after each epoch -> the epochs of the best validation
    fit    = all training sessions for so many epochs, at the learning rates of the run that chose

Both are runs that are resumed: the first one leaves its checkpoints in a folder of its own, and its choice in choice.json.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from modeling.config import Goal, ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.splits import Fold, Split
from modeling.training.distributed import is_first, wait
from modeling.training.fit import costs, fit
from modeling.training.log import Report
from schemas.artifacts import write_atomically

Train = Callable[[Split, TrainingConfig, Path], tuple[SequenceModel, dict[str, Any]]]
CHOICE, CHOOSING = "choice.json", "choosing"  # below the folder of checkpoints


class Choice(BaseModel):
    """How many epochs the run took that was best on the days held out, of how many at most, and what that cost.

    `curve` is the goal after each epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: tuple[str, ...]
    cases: int
    epochs: int
    of_epochs: int
    goal: str
    curve: tuple[tuple[float, float], ...]
    tokens: int
    wall_seconds: float
    cpu_seconds: float


def fit_with_newest_days(
    fold: Fold,
    model_config: ModelConfig,
    config: TrainingConfig,
    folder: Path,
    report: Report,
    items: pl.DataFrame,
    goal: Goal,
) -> tuple[SequenceModel, dict[str, Any]]:
    """Choose the number of epochs on the newest days of a fold's training sessions, then train on all of them -> model, facts.

    Facts are those of `fit`, its validation that of the run that chose, with `choice` (`Choice`: on which days, by what, at
    which cost; None where there was none to make). Tokens and seconds are those of both runs. Where too few days are left, or
    none of their cases can be ranked, all epochs are done.
    """

    def train(split: Split, config: TrainingConfig, folder: Path, **more: Any) -> tuple[SequenceModel, dict[str, Any]]:
        return fit(fold.schema, split, model_config, config, folder, report, items, goal=goal, **more)

    choice = _read(folder) or _choose(fold, config, folder, report, train)
    split = fold.read_whole(config.validation_days, config.validation_sessions)
    epochs = choice.epochs if choice else config.epochs
    shorter = config.model_copy(update={"epochs": epochs})
    model, facts = train(split, shorter, folder, of_epochs=config.epochs)
    if choice is None:
        return model, facts | {"choice": None}
    both = [getattr(choice, name) + facts[name] for name in ("tokens", "wall_seconds", "cpu_seconds")]
    best = next(value for epoch, value in reversed(choice.curve) if round(epoch) == choice.epochs)
    validated = {"validation_cases": choice.cases, "goal": choice.goal, f"validation_{choice.goal}": best}
    return model, facts | costs(*both) | validated | {"choice": choice.model_dump(mode="json")}


def _choose(fold: Fold, config: TrainingConfig, folder: Path, report: Report, train: Train) -> Choice | None:
    inner, split = fold.before(config.validation_days), None
    if inner:
        split = fold.read_chooser(config.validation_days, config.validation_sessions)
    if inner is None or split is None or not bool((split.train.lengths >= 2).any()):
        report(
            f"No number of epochs is chosen: of {len(fold.train_days)} training days {config.validation_days} would validate "
            f"and none be left to train on. All {config.epochs} epochs are done."
        )
        return None
    report(f"Choosing the number of epochs on {inner.name}, held out whole.")
    probe = config.model_copy(update={"order": "random", "evaluations": config.epochs})
    _, facts = train(split, probe, folder / CHOOSING)
    if facts["weights"] != "best validation":
        report(f"No case of {inner.name} can be ranked: no number of epochs is chosen, all {config.epochs} are done.")
        return None
    rows = [row for row in facts["history"] if facts["goal"] in row["validation"]]
    curve = tuple((row["epoch"], row["validation"][facts["goal"]]) for row in rows)
    epochs = next(round(row["epoch"]) for row in rows if row["step"] == facts["best_step"])
    about = {name: facts[name] for name in ("goal", "tokens", "wall_seconds", "cpu_seconds")}
    choice = Choice(
        days=inner.test_days,
        cases=facts["validation_cases"],
        epochs=epochs,
        of_epochs=config.epochs,
        curve=curve,
        **about,
    )
    report(f"{epochs} of {config.epochs} epochs are best by {choice.goal} on {inner.name}: trained again with it.")
    if is_first():
        write_atomically(folder / CHOICE, choice.model_dump_json() + "\n")
        shutil.rmtree(folder / CHOOSING)
    wait()
    return choice


def _read(folder: Path) -> Choice | None:
    """The choice that was made before the run was interrupted."""
    try:
        return Choice.model_validate_json((folder / CHOICE).read_text())
    except (OSError, ValueError):
        return None
