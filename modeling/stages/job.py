"""One training: everything that it is made of, and the run itself, in one process or as a part of several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling.config import Goal, ModelConfig, SplitConfig, TrainingConfig
from modeling.stages.learned import UNTIL, end_of
from modeling.stages.parent import Parent, replay_of, warmed
from schemas.artifacts import Artifacts, Manifest

if TYPE_CHECKING:
    import polars as pl

    from modeling.model import SequenceModel
    from modeling.splits import Fold
    from modeling.training.log import Report

ITEMS, UNFINISHED = "items.parquet", "unfinished"


@dataclass(frozen=True)
class Refit:
    """A model whose training is done again with the sessions that it was tested on, and the epochs that it took."""

    model: str
    epochs: int
    of_epochs: int
    first_day: str | None  # of a model that started from another one, the first day of which it read all


@dataclass(frozen=True)
class Job:
    """What a model is made of. `chosen` are the settings that followed the shape of the data, by name."""

    artifacts: Artifacts
    id: str
    sessions: Manifest
    model: ModelConfig
    training: TrainingConfig
    split: SplitConfig
    goal: Goal
    parent: Parent | None
    chosen: dict[str, Any]
    refit: Refit | None = None

    @property
    def checkpoints(self) -> Path:
        """Where a run that is interrupted is resumed from."""
        return self.artifacts.root / UNFINISHED / self.id

    def run(self, report: Report) -> tuple[SequenceModel, dict[str, Any]]:
        """The model, and facts about its run."""
        import polars as pl

        from modeling.splits import folds  # torch is only loaded when there is something to train
        from modeling.stages.memory import kept_memory

        fold = folds(self.sessions, self.split, self.model.inputs.past_events)[-1]
        items = pl.read_parquet(self.sessions.folder / ITEMS, glob=False)
        # It learns from the days before the test day.
        about = {"start_from": None, "test_day": fold.test_day, "split": fold.about(), UNTIL: end_of(self.sessions)}
        with kept_memory(), _kept_threads():
            model, facts = self._refit(fold, items, report) if self.refit else self._fit(fold, items, report)
        return model, about | facts

    def _fit(self, fold: Fold, items: pl.DataFrame, report: Report) -> tuple[SequenceModel, dict[str, Any]]:
        from modeling.training.fit import fit
        from modeling.training.held_out import fit_with_newest_days

        config = self.training
        if config.validation == "days":
            return fit_with_newest_days(fold, self.model, config, self.checkpoints, report, items, self.goal)
        split, about = fold.read(config.validation_sessions), dict[str, Any]()
        first_day = self.parent.first_day(fold, config) if self.parent else ""
        start = (
            self.parent.start(self.sessions, split, self.model, config, items, first_day, report)
            if self.parent
            else None
        )
        if self.parent and start:
            config = warmed(config)
            about = {
                "start_from": self.parent.name,
                "first_day": first_day,
                "read_sessions": len(start.reads_N.unique()),
            }
            report(
                f"Starting from {self.parent.name}: {about['read_sessions']:,} of {len(split.train):,} sessions, "
                f"{replay_of(self.training):.0%} of all in random order, then those from {first_day or 'the first day'} on."
            )
            if config.recent_days:
                report(
                    f"From scratch the newest {config.recent_days} days alone would be read (training.recent_days): where "
                    "that is so, starting from a model saves little and may lose (docs/backtest.md)."
                )
        model, facts = fit(
            fold.schema, split, self.model, config, self.checkpoints, report, items, start=start, goal=self.goal
        )
        return model, facts | about

    def _refit(self, fold: Fold, items: pl.DataFrame, report: Report) -> tuple[SequenceModel, dict[str, Any]]:
        """All sessions, those tested on among them, by the recipe of the model that was tested."""
        from modeling.training.fit import fit

        assert self.refit
        split, start, config = fold.read_all(), None, self.training
        if self.parent and self.refit.first_day is not None:
            first_day, config = self.refit.first_day, warmed(config)
            start = self.parent.start(self.sessions, split, self.model, self.training, items, first_day, report)
        shorter = config.model_copy(update={"epochs": self.refit.epochs})
        report(f"Training {self.refit.model} again with what it was tested on, {self.refit.epochs} epochs.")
        model, facts = fit(
            fold.schema, split, self.model, shorter, self.checkpoints, report, items, start=start, goal=self.goal,
            of_epochs=self.refit.of_epochs,
        )  # fmt: skip
        about: dict[str, Any] = {"refit_of": self.refit.model, "night": fold.test_day, "test_day": fold.next_day}
        if start and self.parent:
            about |= {"start_from": self.parent.name, "first_day": self.refit.first_day}
            about["read_sessions"] = len(start.reads_N.unique())
        return model, facts | about


@contextmanager
def _kept_threads() -> Iterator[None]:
    """torch's number of CPU threads is after the block what it was before: `training.threads` is of a training alone."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
