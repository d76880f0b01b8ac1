"""A night from its first stage to its last, whether stages are Prefect tasks or plain functions; and whether all is done.

events -> sessions -> candidate -> metrics -> comparison -> promotion -> report
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from flows import stages
from flows.in_service import InService
from flows.lateness import late
from flows.reports.progress import Lines
from flows.reports.report import summarise
from flows.settings.settings import Settings
from flows.tracking.target import is_on
from schemas.artifacts import Manifest


@dataclass(frozen=True)
class Stages:
    """The functions of `flows.stages`, or tasks that run them: settings and manifests in, a manifest out."""

    prepare: Callable[..., Manifest]
    train: Callable[..., Manifest]
    evaluate: Callable[..., Manifest]
    compare: Callable[..., Manifest]
    promote: Callable[..., InService]
    report: Callable[..., Manifest]
    lists: Callable[..., Manifest]
    vectors: Callable[..., Manifest]
    shown: Callable[..., str]
    record: Callable[..., str]


def run_stages(settings: Settings, run: Stages) -> dict[str, Any]:
    """All stages, one after the other; returns what `summarise` says of them."""
    sessions = run.prepare(settings)
    candidate = run.train(settings, sessions)
    measured = run.evaluate(settings, candidate, sessions)
    comparison = run.compare(settings, measured, sessions)
    in_service = run.promote(settings, comparison)
    page = run.report(settings, sessions, candidate, measured, comparison)
    waited = late(settings, sessions)
    summary = summarise(settings.dataset.name, sessions, candidate, measured, comparison, in_service, page, waited)
    if settings.dataset.serving.lists and in_service.model != "none":
        made = run.lists(settings, sessions)
        summary |= {"lists": made.name, "nothing_to_do": summary["nothing_to_do"] and made.reused}
    if settings.dataset.serving.vectors and in_service.model != "none":
        made = run.vectors(settings)
        summary |= {"vectors": made.name, "nothing_to_do": summary["nothing_to_do"] and made.reused}
    if settings.dataset.serving.tracking:
        summary["shown"] = run.shown(settings)
    page_of_run = run.record(settings, page) if is_on(settings.artifacts) else ""
    return summary | {"preset": settings.preset, "mlflow": page_of_run or None}


def finished_night(settings: Settings, say: Callable[[str], object]) -> dict[str, Any] | None:
    """The summary of a night all of whose stages were done before; None where any of them has work to do.

    The stages themselves say so: they run on artifacts that are only looked up, and nothing is left behind. `say` gets their
    lines, with the time and the stage, when all are done.
    """
    lines: list[str] = []

    def plain(name: str) -> Callable[..., Any]:
        def note(line: str) -> None:
            now = time.time()
            clock = time.strftime("%H:%M:%S", time.localtime(now))
            lines.append(f"{clock}.{int(now * 1000) % 1000:03} | INFO    | Stage {name!r} - {line}")

        return functools.partial(_call, getattr(stages, name), Lines(note))

    run = Stages(**{field.name: plain(field.name) for field in fields(Stages)})
    try:
        summary = run_stages(replace(settings, only_finished=True), run)
    except Exception:  # work to do; and what fails is to fail in the run, which reports it
        return None
    for line in lines:
        say(line)
    return summary if summary["nothing_to_do"] else None


def _call(stage: Callable[..., Any], progress: Lines, *given: Any) -> Any:
    return stage(*given, progress)
