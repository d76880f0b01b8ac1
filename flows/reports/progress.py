"""Progress as people see it: one bar through a stage's phases in a terminal, lines elsewhere, an artifact in Prefect's UI."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from schemas.progress import Progress

PREPARE = ("index", "plan", "read", "clean", "fit", "encode", "commit", "publish")  # phases of a preparation
TRAIN = ("train",)
REST = 2.0  # seconds between two requests to Prefect's server, of about 7 ms each
STEP = 10  # per cent of a phase between two lines that say how far it is

OnProgress = Callable[[Progress | str], object]


def as_progress(report: Progress | str) -> Progress:
    """A report as numbers; a line counts nothing."""
    return report if isinstance(report, Progress) else Progress(TRAIN[0], message=report)


class Lines:
    """Reports -> lines. A message is a line; numbers alone are one when `STEP` per cent more of a phase are done."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self.say = say
        self._last = ("", 0)  # the phase, and its per cent at the last line

    def __call__(self, report: Progress | str) -> None:
        if isinstance(report, str) or report.message:
            self.say(str(report))
            if isinstance(report, Progress) and report.total:
                self._last = (report.phase, 100 * report.done // report.total)
            return
        phase, before = self._last
        before = before if phase == report.phase else 0
        percent = 100 * report.done // report.total if report.total else 0
        if percent >= before + STEP:
            counted = f"{report.done:,} of {report.total:,} ({percent}%)"
            counted += f", {report.measured}" if report.measured else ""
            self.say(f"{report.phase}: {counted}" if report.total > 1 else report.phase)
            before = percent
        elif percent < before:  # the same phase of the next batch
            before = 0
        self._last = (report.phase, before)


def share_done(report: Progress, phases: tuple[str, ...]) -> float | None:
    """How much of all phases is done, from 0 to 1, each of equal weight; None for a phase that is not one of them."""
    if report.phase not in phases:
        return None
    share = min(report.done / report.total, 1.0) if report.total else 0.0
    return (phases.index(report.phase) + share) / len(phases)


class TerminalProgress:
    """One bar through all phases, with messages above it. Where the output is no terminal, lines."""

    def __init__(self, phases: tuple[str, ...] = PREPARE, console: Console | None = None) -> None:
        self.phases = phases
        self.console = console or Console(highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        self.bar = Bars(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task: TaskID = self.bar.add_task(phases[0], total=1.0)
        self._lines = Lines(self._print)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __call__(self, report: Progress | str) -> None:
        if isinstance(report, str) or report.message or self.bar.disable:
            self._lines(report)
        report = as_progress(report)
        share = share_done(report, self.phases)
        if share is not None and report.total:
            self.bar.update(self.task, completed=share, description=self._describe(report))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def _describe(self, report: Progress) -> str:
        if report.done < report.total:
            return f"{report.phase} {report.done:,}/{report.total:,}" + (
                f", {report.measured}" if report.measured else ""
            )
        place = self.phases.index(report.phase) + 1
        return self.phases[min(place, len(self.phases) - 1)]

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False)


@contextmanager
def run_progress(name: str, phases: tuple[str, ...], log: Callable[[str], object]) -> Iterator[OnProgress]:
    """Inside a Prefect task: lines go to `log`, numbers move the run's progress artifact `name`, once in `REST` seconds."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    lines = Lines(log)
    artifact: UUID | None = None
    shown, moved = 0, -math.inf

    def move(percent: int) -> None:
        nonlocal artifact, shown, moved
        if artifact is None:
            created = create_progress_artifact(float(percent), key=name, description=f"{name}, per cent")
            assert isinstance(created, UUID)  # a coroutine only in async code
            artifact = created
        elif percent != shown:
            update_progress_artifact(artifact, float(percent))
        shown, moved = percent, time.monotonic()

    def show(report: Progress | str) -> None:
        lines(report)
        report = as_progress(report)
        share = share_done(report, phases)
        if share is not None and report.total and time.monotonic() - moved > REST:
            move(round(100 * share))

    yield show
    if artifact is not None:
        move(100)
