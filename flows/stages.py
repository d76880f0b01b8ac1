"""The stages of a night as Prefect tasks: each returns a manifest, says what it did, and shows it in the UI.

Results are kept by content in artifact folders, so a stage whose work is done returns at once, as Cached.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.reports import report as reports
from flows.settings.settings import Settings
from schemas.artifacts import Manifest
from schemas.errors import InputError

Given = ParamSpec("Given")
Progress = Callable[[str], None]
MISTAKE = "Mistake"


def stage(
    function: Callable[Concatenate[Settings, Progress, Given], Manifest],
) -> Callable[Concatenate[Settings, Given], Manifest]:
    """A task that logs progress lines, ends as Cached when its artifact was there, and as Mistake when the user can mend it."""

    @task(name=function.__name__, task_run_name=function.__name__, cache_policy=NO_CACHE, persist_result=False)
    def run(settings: Settings, *args: Given.args, **kwargs: Given.kwargs) -> Any:
        try:
            manifest = function(settings, get_run_logger().info, *args, **kwargs)
        except InputError as error:
            return Failed(name=MISTAKE, message=str(error))
        if manifest.reused:
            return Completed(name="Cached", message=f"{manifest.name} was there already", data=manifest)
        return manifest

    @wraps(function)
    def call(settings: Settings, *args: Given.args, **kwargs: Given.kwargs) -> Manifest:
        state = run(settings, *args, **kwargs, return_state=True)
        if state.name == MISTAKE:
            raise InputError(state.message)
        manifest: Manifest = state.result()
        return manifest

    return call


def explain_mistakes(function: Callable[Given, Any]) -> Callable[Given, Any]:
    """For a flow: what the user can mend ends it with one clear line instead of a traceback."""

    @wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Any:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            return Failed(name=MISTAKE, message=str(error))

    return run


@stage
def prepare(settings: Settings, progress: Progress) -> Manifest:
    """Raw events -> session Parquet, feature schema, vocabularies, quarantine."""
    from flows.preparation import prepare

    sessions = prepare(settings, progress)
    if sessions.reused:  # else they were told on the way
        for warning in sessions.facts["warnings"]:
            progress(f"{sessions.facts['test_day']}: {warning}")
    reports.show_sessions(sessions)
    return sessions


@stage
def train(settings: Settings, progress: Progress, sessions: Manifest) -> Manifest:
    """Sessions -> the candidate: a model folder."""
    from modeling.training import train

    settings.introduce(progress)
    with reports.ProgressBar("training", progress) as bar:
        model = train(settings.artifacts, sessions, settings.model, settings.training, bar)
    reports.show_training(model)
    return model


@stage
def evaluate(settings: Settings, progress: Progress, model: Manifest, sessions: Manifest) -> Manifest:
    """Model and baselines on the hidden last items of the test sessions."""
    from modeling.evaluation import evaluate

    evaluation = evaluate(settings.artifacts, model, sessions, settings.evaluation, progress)
    reports.show_metrics(evaluation)
    return evaluation


@stage
def compare(settings: Settings, progress: Progress, evaluation: Manifest, sessions: Manifest) -> Manifest:
    """The candidate against the model in service, on the same sessions."""
    from modeling.promotion import compare

    return compare(
        settings.artifacts,
        settings.dataset.name,
        evaluation,
        sessions,
        settings.promotion,
        settings.evaluation,
        progress,
    )


@task(task_run_name="promote", cache_policy=NO_CACHE)
def promote(settings: Settings, comparison: Manifest) -> str:
    """Put the candidate into service if the comparison says so; returns the model in service."""
    from modeling.promotion import promote

    champion = promote(settings.artifacts, comparison)
    return champion.model if champion else "none"


@stage
def report(
    settings: Settings,
    progress: Progress,
    sessions: Manifest,
    model: Manifest,
    evaluation: Manifest,
    comparison: Manifest,
) -> Manifest:
    """One page that says what was read, learned, measured and decided."""
    page = reports.write_report(settings.artifacts, settings.dataset, sessions, model, evaluation, comparison)
    progress(f"Report: {page.folder / reports.PAGE}")
    return page
