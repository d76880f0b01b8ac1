"""Prepare the sessions that settings ask for, with the engine and the workers they ask for."""

from __future__ import annotations

from collections.abc import Callable

from flows.settings.settings import Settings
from preprocessing.execution.workers import workers_of
from preprocessing.pipeline import prepare as run
from schemas.artifacts import Manifest


def prepare(settings: Settings, progress: Callable[[str], object]) -> Manifest:
    """Raw events -> session Parquet, feature schema, vocabularies, quarantine, profiles."""
    data = settings.data
    with workers_of(data.engine, data.workers, data.scheduler) as workers:
        return run(
            settings.artifacts,
            settings.dataset,
            until=data.until,
            days=data.days,
            engine=data.engine,
            workers=workers,
            progress=lambda report: progress(str(report)) if report.message else None,
        )
