"""Contenders x folds -> models trained and measured -> an artifact with a table: what comparisons and backtests share.

    measured = measure_all(contenders, folds, progress)          rows, one a fold and scorer
    manifest = record(settings, kind, contenders, folds, measured)    result.json, and the files that a kind shows them by

Stages are those of a night, so what was done before, in a night, a backtest or a comparison that was stopped, is not done
again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from flows import stages
from flows.folds import Fold, OnProgress
from flows.reports.comparison import Row, Total, rows_of, settings_of, totals_of
from flows.results import write_result
from flows.settings.settings import Settings
from modeling.config import NEXT_ITEM
from schemas.artifacts import Manifest, identify, sha256
from schemas.closure import code_of
from schemas.errors import DivergedError, InputError

ROOT = Path(__file__).parents[1]
OWN_METRIC = "ndcg"  # where promotion is by a label
Stage = Callable[..., Manifest]
Does = Callable[[Stage], Stage]  # makes of a stage the same one done elsewhere, as `Child.does`


class Contender(Protocol):
    """One of those that are measured on every fold."""

    @property
    def name(self) -> str:
        """Its name in tables."""

    @property
    def trains(self) -> bool:
        """Whether it is trained on the sessions of each fold."""

    def model_for(
        self, fold: Fold, before: Manifest | None, train: Stage, progress: OnProgress
    ) -> tuple[Manifest, float]:
        """The model that a fold is predicted by, and the CPU seconds its training took; `before` is that of the fold before."""


@dataclass
class Measured:
    """What came of it so far: rows, one a fold and scorer, the settings of models, warnings, and who was left out."""

    rows: list[Row] = field(default_factory=list)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A folder of results, and how they are shown: facts, rows and totals -> the text of files by name.

    `made_of` are the templates and scripts that files are made of.
    """

    folder: str
    show: Callable[[dict[str, Any], list[Row], list[Total]], Mapping[str, str]]
    made_of: tuple[Path, ...]


def require_ranks(name: str, settings: Settings) -> None:
    """
    Raises:
        InputError: when a model of these settings ranks no items.
    """
    if NEXT_ITEM not in settings.model.heads:
        raise InputError(f"{name!r} ranks no items (heads has no {NEXT_ITEM}), so its ranks cannot be compared.")


def metric_of(settings: Settings) -> str:
    """The metric of ranks that promotion goes by; the NDCG at the largest cut-off where it goes by a label."""
    metric = settings.promotion.metric
    return metric if "@" in metric else f"{OWN_METRIC}@{max(settings.evaluation.cutoffs)}"


def measure_all(
    contenders: Sequence[Contender], folds: Sequence[Fold], progress: OnProgress, does: Does = lambda stage: stage
) -> Measured:
    """Each contender trained for each fold and measured on it, with the baselines of `evaluation.baselines` on the same cases.

    A contender that diverges is left out of all folds and named; the first, with which the rest are compared, may not.

    Raises:
        InputError: when the first contender diverges; as training and measuring do.
    """
    measured, models = Measured(), dict[str, Manifest]()
    for number, fold in enumerate(folds):
        done = f"{number * len(contenders)} of {len(folds) * len(contenders)} done"
        progress(f"Fold {number + 1} of {len(folds)}, {fold.name} ({done}):")
        _measure_fold(contenders, fold, measured, models, progress, does)
    measured.rows = [row for row in measured.rows if row.name not in measured.left_out]
    return measured


def _measure_fold(
    contenders: Sequence[Contender],
    fold: Fold,
    measured: Measured,
    models: dict[str, Manifest],
    progress: OnProgress,
    does: Does,
) -> None:
    """All contenders on a fold; the baselines with the first of them that is trained on its very sessions."""
    baselines = fold.settings.evaluation.baselines
    trains = any(contender.trains for contender in contenders)
    for place, contender in enumerate(contenders, start=1):
        name = contender.name
        if name in measured.left_out:
            continue
        progress(f"{fold.name}, {place} of {len(contenders)}: {name}")
        own_baselines = baselines if contender.trains or not trains else ()
        try:
            models[name], cost = contender.model_for(fold, models.get(name), does(stages.train), progress)
        except DivergedError as error:
            if contender is contenders[0]:
                what = f"{name}, the first, with which the rest are compared"
                raise InputError(f"{what}, has diverged on {fold.name}: {error}") from None
            measured.left_out[name] = f"{fold.name}: {error}"
            progress(f"{name} is left out: {error}")
            continue
        how = replace(
            fold.settings, evaluation=fold.settings.evaluation.model_copy(update={"baselines": own_baselines})
        )
        evaluation = does(stages.evaluate)(how, models[name], fold.sessions, progress)
        if evaluation.facts["learned_from_test_day"]:
            measured.warnings.append(
                f"{name} learned from {fold.name}, on which it is tested: its metrics are too good."
            )
        measured.settings.setdefault(name, settings_of(models[name]))
        measured.rows += rows_of(name, fold.name, models[name], evaluation, cost, own_baselines)
        baselines = () if own_baselines else baselines


def record(
    settings: Settings,
    kind: Kind,
    contenders: Sequence[Contender],
    folds: Sequence[Fold],
    measured: Measured,
    **about: Any,
) -> Manifest:
    """The artifact `<kind>/<id>` of what was measured: result.json, and the files of its kind.

    Facts: `metric`, that of promotion; `compared`, the names of contenders; `folds`; `rows`, one a fold and scorer, with its
    metrics; `totals`, one a scorer, with means, intervals of 95 % over users, and the paired difference to the first;
    `settings` by contender; `left_out`; `warnings`; and `about`.
    """
    artifacts, metric = settings.artifacts, metric_of(settings)
    title = settings.dataset.title or settings.dataset.name
    parents = tuple(dict.fromkeys(row.evaluation for row in measured.rows))
    artifact_id = identify(
        code=code_of(ROOT, (kind.show.__module__,), alone=(__name__,)),
        parents=parents,
        made_of=[row.model_dump(exclude={"metrics", "intervals"}) for row in measured.rows],
        shown_by=[sha256(file) for file in kind.made_of],
        about=(title, metric, measured.left_out, measured.warnings, about),
    )

    def made() -> tuple[dict[str, Any], Mapping[str, str]]:
        rows, totals = totals_of(measured.rows, artifacts.root, settings.evaluation.cutoffs)
        facts: dict[str, Any] = {
            "dataset": settings.dataset.name,
            "title": title,
            "metric": metric,
            "compared": [contender.name for contender in contenders if contender.name not in measured.left_out],
            "folds": [fold.name for fold in folds],
            "rows": [row.model_dump() for row in rows],
            "totals": [total.model_dump() for total in totals],
            "settings": measured.settings,
            "left_out": measured.left_out,
            "warnings": measured.warnings,
            **about,
        }
        return facts, kind.show(facts, rows, totals)

    return write_result(artifacts, kind.folder, artifact_id, parents, made)
