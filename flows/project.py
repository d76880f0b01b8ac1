"""The stages of a night from Python: one dataset, where its events are, and where results go.

    shop = Project("shop.yaml", source="shop")
    sessions = shop.prepare()
    model = shop.train(sessions, loss="gbce")
    print(shop.metrics(shop.evaluate(model, sessions)))
    shop.recommender(model).recommend([["lamp-0504", "sofa-0862"]])

Each stage leaves an artifact below the root, as a night does: what was done before, here or by a command, is not done again.
docs/tutorial.md goes through it all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from flows import stages
from flows.console import in_words
from flows.settings.settings import Data, Settings, resolve
from schemas.artifacts import Manifest
from schemas.errors import InputError

if TYPE_CHECKING:
    from modeling.service.recommender import Recommender

MODEL, FOLD, FOLDS = "model", "fold", "folds"
PRESET = "preset"  # in the settings of a model, the name of a preset below them


class Project:
    """A dataset (its name or YAML file), the folder of its events, and the root of artifacts, as commands take them.

    Settings are given by group, as in a dataset's `defaults` and a preset: `loss="gbce"`, `body={"dim": 32}`. `say` gets a line
    at a time of what stages do; None: nobody does.

    Raises:
        InputError: for a dataset or a source that does not fit.
    """

    def __init__(
        self,
        dataset: str | Path,
        source: str | Path | None = None,
        root: str | Path | None = None,
        *,
        say: Callable[[str], object] | None = print,
    ) -> None:
        self.data = Data(dataset=str(dataset), source=source and str(source), root=root and Path(root))
        self.settings()  # what does not fit is said now
        self._progress = in_words(say or _nobody)

    def settings(self, preset: str | None = None, **groups: Any) -> Settings:
        """All settings of a run: those given by group, over the preset, over what suits the dataset, over the defaults.

        Raises:
            InputError: for an unknown preset, group or setting, and for settings that do not go together.
        """
        return resolve(self.data, preset, groups)

    def prepare(self, until: date | None = None, days: int | None = None) -> Manifest:
        """Events -> `sessions/<id>`, to be tested on the day `until` (None: the last full day), of so many days (None: all)."""
        of_days = self.data.model_copy(update={"until": until, "days": days})
        return stages.prepare(resolve(of_days), self._progress)

    def folds(self, count: int = 3) -> list[Manifest]:
        """The sessions of the newest `count` test days, oldest first, each with all days before it to train on.

        Raises:
            InputError: where there are fewer days with sessions, or sessions are not split by days.
        """
        newest = self.prepare()
        days = [date.fromisoformat(day) for day in sorted(newest.facts["days"])]
        if newest.facts["test_day"] is None or not 0 < count < len(days):
            raise InputError(
                f"{FOLDS}={count!r}: {self.data.dataset} has {max(len(days) - 1, 0)} days that have a day before them; give 1 "
                "or more, at most so many. Histories without days (split: leave_one_out) have one test: prepare()."
            )
        return [newest if day == days[-1] else self.prepare(until=day) for day in days[-count:]]

    def train(self, sessions: Manifest, preset: str | None = None, **groups: Any) -> Manifest:
        """Sessions -> `models/<id>`, with settings by group (`inputs`, `body`, `objective`, `loss`, `heads`, `training`)."""
        return stages.train(self.settings(preset, **groups), sessions, self._progress)

    def evaluate(self, model: Manifest, sessions: Manifest, **evaluation: Any) -> Manifest:
        """Model and baselines on the test day of sessions -> `evaluations/<id>`; `evaluation`: settings of that group."""
        return stages.evaluate(self.settings(evaluation=evaluation), model, sessions, self._progress)

    @staticmethod
    def metrics(evaluation: Manifest) -> pl.DataFrame:
        """One row for the model, named by its body, and each baseline: `model`, its metrics, and what its lists are like."""
        lists = evaluation.facts.get("lists", {}).get("metrics", {})
        rows = [{MODEL: name} | values | lists.get(name, {}) for name, values in evaluation.facts["metrics"].items()]
        return pl.DataFrame(rows, infer_schema_length=None)

    def cross_validate(
        self, models: Mapping[str, Mapping[str, Any]], folds: int = 3, **evaluation: Any
    ) -> pl.DataFrame:
        """Train and measure several models on the newest test days: rows of `fold` (the day), `model` and the metrics.

        `models` has the settings of each by a name of its own, as `train` takes them: `{"gBCE": {"loss": "gbce"}, "BERT4Rec":
        {"preset": "bert4rec"}}`. Baselines are measured once a fold, on the same cases; their rows come last. Unless
        `diversity` names a feature, their lists are diverse by the item vectors of the first model.

        Raises:
            InputError: for a model that has the name of a baseline, and for settings that do not fit.
        """
        for name, settings in models.items():
            chosen = self.settings(**settings)
            if name in chosen.evaluation.baselines:
                raise InputError(f"models: {name!r} is the name of a baseline; give another.")
        ours, baselines = [], []
        for sessions in self.folds(folds):
            for place, (name, settings) in enumerate(models.items()):
                alone = {"baselines": ()} if place else {}
                trained = self.train(sessions, **settings)
                measured = self.metrics(self.evaluate(trained, sessions, **(evaluation | alone)))
                table = measured.select(pl.lit(sessions.facts["test_day"]).alias(FOLD), pl.all())
                ours.append(table[:1].with_columns(pl.lit(name).alias(MODEL)))
                baselines.append(table[1:])
        return pl.concat([*ours, *baselines], how="diagonal_relaxed")

    def recommender(self, model: Manifest | None = None) -> Recommender:
        """A model ready to recommend; left out, the one in service for the dataset.

        Raises:
            InputError: when there is none.
        """
        from flows.in_service import model_folder
        from modeling.service.recommender import Recommender

        artifacts = self.settings().artifacts
        return Recommender(model.folder if model else model_folder(artifacts, self.data.dataset))


def _nobody(line: str) -> None:
    """Nothing is said."""
