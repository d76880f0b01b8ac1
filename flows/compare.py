"""Several models on the same folds and the same cases: trained, measured and shown on one page.

Stages are those of a night, so what was done before, in a night, a backtest or a comparison that was stopped, is not done
again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flows import stages
from flows.contenders import Contender, contenders_of
from flows.folds import Fold, OnProgress, folds_of
from flows.in_service import model_of
from flows.reports.comparison import TABLE, Row, rows_of, settings_of, table_of, totals_of
from flows.reports.comparison_page import PAGE, page_of
from flows.reports.plot import script_file
from flows.reports.templates import HERE
from flows.results import write_result
from flows.settings.settings import Settings
from schemas.artifacts import Manifest, identify, sha256
from schemas.closure import code_of
from schemas.errors import DivergedError, InputError

ROOT = Path(__file__).parents[1]
CROSS_VALIDATIONS = "cross_validations"
OWN_METRIC = "ndcg"  # where promotion is by a label


@dataclass
class Measured:
    """What came of a comparison so far: rows, one a fold and scorer, the settings of models, warnings, and who was left out."""

    rows: list[Row] = field(default_factory=list)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def compare(
    settings: Settings, names: str, num_folds: int | None, window: int | None, progress: OnProgress = print
) -> Manifest:
    """Train and measure what `names` lists (see `flows.contenders`), as `compare_all` does.

    Raises:
        InputError: for names that are not there, and as `compare_all` does.
    """
    script_file()  # what the page needs is missed before anything is trained
    return compare_all(settings, contenders_of(names, settings), num_folds, window, progress)


def compare_all(
    settings: Settings,
    contenders: list[Contender],
    num_folds: int | None,
    window: int | None,
    progress: OnProgress = print,
) -> Manifest:
    """Train and measure contenders on each fold -> `cross_validations/<id>`: result.json, table.md and comparison.html.

    Baselines (`evaluation.baselines`) are measured on the same cases. A model that diverges is left out and named; the first
    may not. Facts: `metric`, by which the table is in order; `rows`, one a fold and scorer, with its metrics; `totals`, one a
    scorer, with means, intervals of 95 % over users, and the paired difference to the first; `left_out`; `warnings`.

    Raises:
        InputError: for folds or settings that do not fit; when the first model diverges.
    """
    script_file()
    for contender in contenders:
        if contender.model:
            model_of(settings.artifacts, contender.model)
    folds = folds_of(settings, num_folds, window, progress)
    measured = Measured()
    for number, fold in enumerate(folds):
        done = f"{number * len(contenders)} of {len(folds) * len(contenders)} done"
        progress(f"Fold {number + 1} of {len(folds)}, {fold.name} ({done}):")
        _measure_all(contenders, fold, measured, progress)
    measured.rows = [row for row in measured.rows if row.name not in measured.left_out]
    return _write(settings, contenders, folds, measured)


def _measure_all(contenders: list[Contender], fold: Fold, measured: Measured, progress: OnProgress) -> None:
    """All contenders on a fold; the baselines with the first of them that is trained on its very sessions."""
    baselines = fold.settings.evaluation.baselines
    trains = any(not contender.model for contender in contenders)
    for place, contender in enumerate(contenders, start=1):
        if contender.name in measured.left_out:
            continue
        progress(f"{fold.name}, {place} of {len(contenders)}: {contender.name}")
        here = baselines if not (trains and contender.model) else ()
        try:
            measured.rows += _measure(contender, fold, here, measured, progress)
        except DivergedError as error:
            if contender is contenders[0]:
                what = f"{contender.name}, the first of --presets, with which the rest are compared"
                raise InputError(f"{what}, has diverged on {fold.name}: {error}") from None
            measured.left_out[contender.name] = f"{fold.name}: {error}"
            progress(f"{contender.name} is left out: {error}")
        else:
            baselines = () if here else baselines


def _measure(
    contender: Contender, fold: Fold, baselines: tuple[str, ...], measured: Measured, progress: OnProgress
) -> list[Row]:
    """The rows of a contender on a fold, and of baselines that are measured with it."""
    if contender.model:
        chosen, cost = model_of(fold.settings.artifacts, contender.model), 0.0
    else:
        settings = contender.settings(fold.settings)
        chosen = stages.train(settings, fold.sessions, progress)
        cost = float(chosen.facts["cpu_seconds"])
    how = replace(fold.settings, evaluation=fold.settings.evaluation.model_copy(update={"baselines": baselines}))
    evaluation = stages.evaluate(how, chosen, fold.sessions, progress)
    if evaluation.facts["learned_from_test_day"]:
        measured.warnings.append(
            f"{contender.name} learned from {fold.name}, on which it is tested: its metrics are too good."
        )
    measured.settings.setdefault(contender.name, settings_of(chosen))
    return rows_of(contender.name, fold.name, chosen, evaluation, cost, baselines)


def _write(settings: Settings, contenders: list[Contender], folds: list[Fold], measured: Measured) -> Manifest:
    artifacts, metric = settings.artifacts, metric_of(settings)
    parents = tuple(dict.fromkeys(row.evaluation for row in measured.rows))
    code = code_of(ROOT, ("flows.reports.comparison_page",), alone=(__name__,))
    artifact_id = identify(
        code=code,
        parents=parents,
        page=sha256(HERE / f"{PAGE}.j2"),
        script=sha256(script_file()),
        made_of=[row.model_dump(exclude={"metrics"}) for row in measured.rows],
        about=(settings.dataset.title or settings.dataset.name, metric, measured.left_out, measured.warnings),
    )

    def made() -> tuple[dict[str, Any], dict[str, str]]:
        rows, totals = totals_of(measured.rows, artifacts.root, settings.evaluation.cutoffs)
        facts: dict[str, Any] = {
            "dataset": settings.dataset.name,
            "metric": metric,
            "compared": [contender.name for contender in contenders if contender.name not in measured.left_out],
            "folds": [fold.name for fold in folds],
            "rows": [row.model_dump() for row in rows],
            "totals": [total.model_dump() for total in totals],
            "settings": measured.settings,
            "left_out": measured.left_out,
            "warnings": measured.warnings,
        }
        page = page_of(settings.dataset.title or settings.dataset.name, facts, rows, totals)
        return facts, {TABLE: table_of(totals, metric), PAGE: page}

    return write_result(artifacts, CROSS_VALIDATIONS, artifact_id, parents, made)


def metric_of(settings: Settings) -> str:
    """The metric of ranks that promotion goes by; the NDCG at the largest cut-off where it goes by a label."""
    metric = settings.promotion.metric
    return metric if "@" in metric else f"{OWN_METRIC}@{max(settings.evaluation.cutoffs)}"
