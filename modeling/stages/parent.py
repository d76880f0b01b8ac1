"""The model that a night's training starts from: the one in service before it, or one that is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.compare import Champion, champion_of
from modeling.stages.learned import how_it_learned
from schemas.artifacts import Artifacts, Manifest, damaged_files
from schemas.errors import InputError, MisfitError
from schemas.features import FeatureSchema

if TYPE_CHECKING:
    import polars as pl

    from modeling.splits import Fold, Split
    from modeling.training.warm_start import Start

CHAMPION, MODELS = "champion", "models"
PASSES = 9  # of a training from scratch, to one of a warm start: a fifth of its time, with the newest days read again
WEEK = 7
OF_A_START = ("window_days", "replay", "warm_epochs", "warm_rate", "warm_keep")  # settings that nothing else reads
Say = Callable[[str], object]


@dataclass(frozen=True)
class Parent:
    """A model whose weights training begins with. One that is `named` must fit; the one in service may be left."""

    manifest: Manifest
    named: bool

    @property
    def name(self) -> str:
        """`models/<id>`."""
        return self.manifest.name

    def start(
        self,
        sessions: Manifest,
        split: Split,
        model: ModelConfig,
        config: TrainingConfig,
        items: pl.DataFrame,
        first_day: str,
        say: Say,
    ) -> Start | None:
        """Its weights for tonight's sessions, which are all read from `first_day` on; None where they do not fit, and `say` is
        given the reason.

        Raises:
            MisfitError: for a named model that does not fit.
        """
        from modeling.splits import replay_then_newest
        from modeling.training.warm_start import read_start

        reads_N = replay_then_newest(split, first_day, replay_of(config), config.seed, config.recent_days)
        try:
            start = read_start(self.manifest.folder, sessions.folder, model, reads_N, items, config.warm_keep)
        except InputError as error:
            reason = f"{self.name} does not fit: {error}"
        except Exception as error:  # an older folder may fail in any way; the night goes on
            if self.named:
                raise
            reason = f"{self.name} cannot be read ({type(error).__name__}: {error})"
        else:
            return start
        if self.named:
            raise MisfitError(
                f"training.start_from: {reason}. Leave start_from out to train from scratch, set what differs as it is in the "
                "model (what is not set follows the shape of the data), or name a model of the same settings and features."
            )
        say(f"Training from scratch: {reason}.")
        return None

    def first_day(self, fold: Fold, config: TrainingConfig) -> str:
        """The first day whose sessions are all read: `window_days` before the test day, or the parent's test day.

        Where nobody has given a window it has as many days as a training from scratch has passes, a week at most.
        """
        until = self.manifest.facts.get("test_day")
        window = config.window_days or min(config.epochs, WEEK)
        first = fold.train_days[-window:][0] if fold.train_days else ""
        return min(first, until) if until else first


def find_parent(
    artifacts: Artifacts, sessions: Manifest, config: TrainingConfig, test_day: str | None, say: Say = print
) -> Parent | None:
    """The model that `training.start_from` means for these sessions; None for a night from scratch, and `say` is given why.

    `test_day` is the first day that is tested on; None where the last items of sessions are.

    `champion` is the last model in service that was trained for an earlier test day than these sessions', so a night that is
    run again starts where it started, also where its own model is in service now.

    Raises:
        InputError: for a named model that is not there, is damaged, of another dataset, or learned from the test day.
    """
    if config.start_from is None:
        return None
    if config.start_from != CHAMPION:
        return _named(artifacts, sessions, config.start_from, test_day)
    try:
        champion = champion_of(artifacts, _dataset(sessions))
    except InputError as error:
        say(f"Training from scratch: {error}")
        return None
    for name in _in_service(champion):
        manifest = artifacts.read_manifest(*name.split("/"))
        if manifest is None or damaged_files(manifest):
            say(f"Training does not start from {name}: it is missing or damaged.")
        elif _is_earlier(manifest, sessions, test_day):
            return Parent(manifest, named=False)
    say("Training from scratch: no model was in service before this night, to start from.")
    return None


def replay_of(config: TrainingConfig) -> float:
    """The share of all sessions that is read before the newest: as given, else in proportion to the passes from scratch."""
    return min(1.0, config.epochs / PASSES) if config.replay is None else config.replay


def warmed(config: TrainingConfig) -> TrainingConfig:
    """The settings of training that starts from a model: fewer passes, at a lower rate."""
    epochs = config.warm_epochs or max(1, round(config.epochs / PASSES))
    return config.model_copy(update={"epochs": epochs, "learning_rate": config.learning_rate * config.warm_rate})


def _named(artifacts: Artifacts, sessions: Manifest, name: str, test_day: str | None) -> Parent:
    manifest = artifacts.get(name)
    if reason := how_it_learned(manifest, sessions, test_day):
        raise InputError(f"training.start_from {name}: {reason}. Name a model of an earlier night.")
    schema = FeatureSchema.read(Path(manifest.folder) / "schema.json")
    if schema.dataset != _dataset(sessions):
        raise InputError(
            f"training.start_from {name}: it is a model of {schema.dataset!r}, not of {_dataset(sessions)!r}."
        )
    return Parent(manifest, named=True)


def _in_service(champion: Champion | None) -> list[str]:
    """The models that were in service, the newest first, each once."""
    if champion is None:
        return []
    names = [champion.model, *(change.model for change in reversed(champion.history))]
    names += [change.replaced for change in reversed(champion.history) if change.replaced]
    return list(dict.fromkeys(names))


def _is_earlier(model: Manifest, sessions: Manifest, test_day: str | None) -> bool:
    """Whether a model is of an earlier night than these sessions; of histories without a test day, of other sessions.

    A model that was refitted read its own test day, and is of that night.
    """
    own = model.facts.get("night") or model.facts.get("test_day")
    if how_it_learned(model, sessions, test_day):
        return False
    return own < test_day if own and test_day else model.parents != (sessions.name,)


def _dataset(sessions: Manifest) -> str:
    return FeatureSchema.read(sessions.folder / "schema.json").dataset
