"""The stages of a night as plain functions: settings and manifests in, a manifest out.

Results are artifact folders named by what they were made from, so a stage whose work is done returns at once, with a manifest
that is `reused`. `flows.retrain` makes Prefect tasks of them; the commands of `flows.cli` call them as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from flows.in_service import InService
from flows.settings.settings import Settings
from schemas.artifacts import Manifest
from schemas.errors import InputError
from schemas.features import FeatureSchema
from schemas.progress import Progress

if TYPE_CHECKING:
    from modeling.service.rules import Rules
    from preprocessing.execution.run import Workers

OnProgress = Callable[[Progress | str], object]


def prepare(settings: Settings, progress: OnProgress = print, *, verify: bool = False) -> Manifest:
    """Raw events -> `sessions/<id>`: session Parquet, feature schema, vocabularies, quarantine; and the newest day's page.

    With `verify`, all that is finished is read, and what is damaged is mended where that can be.

    Raises:
        InputError: for a source, a dataset or days that do not fit.
    """
    from flows.reports.day_profile import newest_page
    from preprocessing.pipeline import prepare

    data = settings.data
    if settings.dataset.database:
        _import(settings, progress)
    with _workers(settings) as workers:
        sessions = prepare(
            settings.artifacts,
            settings.dataset,
            until=data.until,
            days=data.days,
            redo=data.redo_days,
            verify=verify,
            engine=data.engine,
            workers=workers,
            progress=progress,
        )
    if sessions.reused:  # else they came while the days were prepared
        for warning in sessions.facts.get("warnings", []):
            progress(Progress("publish", message=f"{sessions.facts['test_day']}: {warning}"))
    newest_page(settings.artifacts, settings.dataset, sessions, progress)
    return sessions


def train(settings: Settings, sessions: Manifest, progress: OnProgress = print) -> Manifest:
    """Sessions -> `models/<id>`: the candidate."""
    from modeling.stages import train

    settings.introduce(progress)
    _rules(settings)  # said now, not after training: whether they can be read
    if settings.evaluation.diversity is not None:  # said now, not after training: which features are lists
        columns = FeatureSchema.read(sessions.folder / "schema.json").side_features
        names = [column.name for column in columns if column.per == "event" and not column.many]
        settings.evaluation.check_diversity(names)
    split = settings.evaluation.split
    return train(settings.artifacts, sessions, settings.model, settings.training, progress, split, settings.goal)


def evaluate(settings: Settings, model: Manifest, sessions: Manifest, progress: OnProgress = print) -> Manifest:
    """Model and baselines on the hidden last items of the test sessions -> `evaluations/<id>`: metrics."""
    from modeling.stages import evaluate

    return evaluate(settings.artifacts, model, sessions, settings.evaluation, progress, _rules(settings))


def compare(settings: Settings, evaluation: Manifest, sessions: Manifest, progress: OnProgress = print) -> Manifest:
    """The candidate against the model in service, on the same sessions -> `comparisons/<id>`: the verdict.

    Where the scatter between seeds is due to be measured, that is done first.
    """
    from modeling.stages import compare
    from modeling.stages.scatter import Recipe, with_scatter

    artifacts, dataset, judged = settings.artifacts, settings.dataset.name, settings.evaluation
    recipe = Recipe(settings.model, settings.training, judged, settings.promotion)
    second = settings.dataset.serving.side_by_side
    promotion = with_scatter(artifacts, dataset, sessions, evaluation, recipe, progress)
    return compare(artifacts, dataset, evaluation, sessions, promotion, judged, progress, settings.due, second)


def refit(settings: Settings, comparison: Manifest, progress: OnProgress = print) -> Manifest | None:
    """The candidate that a comparison promotes -> `models/<id>`: trained again with what it was tested on, or None."""
    from modeling.stages import refit

    return refit(settings.artifacts, comparison, progress)


def promote(
    settings: Settings,
    comparison: Manifest,
    progress: OnProgress = print,
    *,
    refit: Callable[[Settings, Manifest, OnProgress], Manifest | None] = refit,
) -> InService:
    """Put the candidate into service if the comparison says so; with `training.refit` its refit, made first by `refit`."""
    from modeling.evaluation.pointer import champion_of
    from modeling.stages import promote

    try:
        before = champion_of(settings.artifacts, settings.dataset.name)
    except InputError:
        before = None
    refitted = refit(settings, comparison, progress) if settings.training.refit else None
    champion = promote(settings.artifacts, comparison, progress, refitted)
    model = _in_service(settings)
    stands_for = (model.facts.get("refit_of") if model else None) or ""
    return InService(champion.model if champion else "none", changed=champion != before, refit_of=stands_for)


def report(
    settings: Settings,
    sessions: Manifest,
    model: Manifest,
    evaluation: Manifest,
    comparison: Manifest,
    progress: OnProgress = print,
) -> Manifest:
    """All that was read, fit, measured and decided -> `reports/<id>`: one page."""
    from flows.lateness import late
    from flows.reports.day_profile import newest_page
    from flows.reports.report import PAGE, write_report

    day_page = newest_page(settings.artifacts, settings.dataset, sessions)
    in_service = _in_service(settings)
    refit = in_service if in_service and in_service.facts.get("refit_of") == model.name else None
    page = write_report(
        settings.artifacts,
        settings.dataset,
        sessions,
        model,
        evaluation,
        comparison,
        day_page,
        refit,
        late(settings, sessions),
    )
    progress(f"Report: {page.folder / PAGE}")
    return page


def lists(settings: Settings, sessions: Manifest, progress: OnProgress = print) -> Manifest:
    """Sessions and the model in service -> `recommendations/<id>`: lists for every user, as `serving.lists` says."""
    from flows.lists import make_lists

    return make_lists(settings, sessions, progress)


def vectors(settings: Settings, progress: OnProgress = print) -> Manifest:
    """The model in service -> `vectors/<id>`: vectors of its items, and into Milvus, as `serving.vectors` says."""
    from flows.vectors import make_vectors

    return make_vectors(settings.artifacts, settings.dataset, progress)


def shown(settings: Settings, progress: OnProgress = print) -> str:
    """What was shown and clicked in the last weeks: its page made anew, and a line of it. It never fails a night."""
    from flows.shown import shown_tonight

    line = shown_tonight(settings.artifacts, settings.dataset)
    progress(line)
    return line


def record(settings: Settings, report: Manifest, progress: OnProgress = print) -> str:
    """The night, and what is in service, to MLflow; the address of the run's page there, or "". It never fails a night."""
    from flows.tracking.follow import record

    return record(settings, report, progress)


def _rules(settings: Settings) -> Rules | None:
    """The rules that models are measured under; None of no evaluation that asks for them."""
    if not settings.evaluation.rules:
        return None
    from flows.rules import rules_of_evaluation

    return rules_of_evaluation(settings.dataset)


def _in_service(settings: Settings) -> Manifest | None:
    """The manifest of the model in service; None where there is none that can be read."""
    from modeling.evaluation.pointer import champion_of

    try:
        champion = champion_of(settings.artifacts, settings.dataset.name)
    except InputError:
        return None
    return settings.artifacts.read_manifest(*champion.model.split("/")) if champion else None


def _import(settings: Settings, progress: OnProgress) -> None:
    """What is new in the database of the dataset -> Parquet files below the root."""
    from flows.connections import url_of
    from preprocessing.source.database.imports import fetch

    assert settings.dataset.database
    fetch(settings.artifacts, settings.dataset, url_of(settings.dataset.database.connection), progress)


def _workers(settings: Settings) -> AbstractContextManager[Workers]:
    from preprocessing.execution.run import Workers
    from preprocessing.execution.workers import workers_of

    data = settings.data
    if settings.only_finished and None in (data.workers, data.scheduler):
        return nullcontext(Workers())  # to find that all is done, nobody else is needed
    return workers_of(data.engine, data.workers, data.scheduler)
