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
from flows.console import in_lines
from flows.environment import require_folder
from flows.night_lock import alone
from flows.settings.settings import Data, Settings, resolve
from schemas.artifacts import Manifest
from schemas.errors import parse

if TYPE_CHECKING:
    from modeling.service.recommender import Recommender

MODEL, FOLD = "model", "fold"


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
        require_folder(self.settings().artifacts.root, "root")  # what does not fit is said now
        self._progress = in_lines(say or _nobody)

    def settings(self, preset: str | None = None, **groups: Any) -> Settings:
        """All settings of a run: those given by group, over the preset, over what suits the dataset, over the defaults.

        Raises:
            InputError: for an unknown preset, group or setting, and for settings that do not go together.
        """
        return resolve(self.data, preset, groups)

    def prepare(self, until: date | None = None, days: int | None = None) -> Manifest:
        """Events -> `sessions/<id>`, to be tested on the day `until` (None: the last full day), of so many days (None: all).

        Raises:
            InputError: for a day that is none or is not in the data, and for fewer days than are needed.
        """
        of_days = parse(Data, self.data.model_dump() | {"until": until, "days": days}, "prepare")
        settings = resolve(of_days)
        with alone(settings, "preparation", self._progress):
            return stages.prepare(settings, self._progress)

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

    def compare(self, models: Mapping[str, Mapping[str, Any]], folds: int | None = None, **evaluation: Any) -> Manifest:
        """Train and measure several models on the newest `folds` test days -> `cross_validations/<id>`, with `comparison.html`.

        `models` has the settings of each by a name of its own, as `train` takes them: `{"gBCE": {"loss": "gbce"}, "BERT4Rec":
        {"preset": "bert4rec"}}`. Baselines are measured on the same cases. The facts are those of `flows.compare`.

        Raises:
            InputError: for more folds than there are days for, the name of a baseline, and settings that do not fit.
        """
        from flows.compare import compare_all
        from flows.contenders import named

        settings = self.settings(evaluation=evaluation)
        return compare_all(settings, named(models, settings), folds, None, self._progress)

    @staticmethod
    def results(comparison: Manifest, *, by_fold: bool = False) -> pl.DataFrame:
        """One row for each model compared, then one for each baseline: `model` and its metrics over the cases of all folds;
        `by_fold`: one for each fold, too, named in `fold`.
        """
        rows = sorted(comparison.facts["rows" if by_fold else "totals"], key=lambda row: bool(row["baseline"]))
        keys = {FOLD: FOLD, MODEL: "name"} if by_fold else {MODEL: "name"}
        table = [{key: row[name] for key, name in keys.items()} | row["metrics"] for row in rows]
        return pl.DataFrame(table, infer_schema_length=None)

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
