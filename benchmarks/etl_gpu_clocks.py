"""Clocks on what preparation does: phases, and functions of several threads."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


class Laps:
    """Wall and CPU seconds of each phase, from the reports of progress."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self._began: dict[str, tuple[float, float]] = {}

    def __call__(self, progress: Any) -> None:
        """Take a report: the first of a phase begins it, the last ends it."""
        phase, now = progress.phase, (time.perf_counter(), time.process_time())
        if progress.total and progress.done == 0:
            self._began[phase] = now
        elif progress.total and progress.done == progress.total and phase in self._began:
            began = self._began.pop(phase)
            self.wall[phase] = round(self.wall.get(phase, 0.0) + now[0] - began[0], 3)
            self.cpu[phase] = round(self.cpu.get(phase, 0.0) + now[1] - began[1], 3)


class Spans:
    """When functions were at work: of each name, how often, seconds of all threads together, and wall seconds of any."""

    def __init__(self) -> None:
        self.spans: dict[str, list[tuple[float, float]]] = {}

    def wrap(self, owner: Any, function: str, name: str, after: Callable[[], object] = lambda: None) -> None:
        """Put a clock around a function or method of a module or class; it stops after `after` is called."""
        plain, there = getattr(owner, function), self.spans.setdefault(name, [])

        @functools.wraps(plain)
        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return plain(*arguments, **options)
            finally:
                after()
                there.append((began, time.perf_counter()))

        setattr(owner, function, timed)

    def clear(self) -> None:
        for spans in self.spans.values():
            spans.clear()

    def summary(self) -> Json:
        """{name: [calls, seconds in all threads, wall seconds]}, the longest first."""
        rows = {name: [len(spans), sum(b - a for a, b in spans), _wall(spans)] for name, spans in self.spans.items()}
        ordered = sorted(rows.items(), key=lambda row: -row[1][2])
        return {name: [calls, *(round(s, 3) for s in seconds)] for name, (calls, *seconds) in ordered if calls}


def _wall(spans: list[tuple[float, float]]) -> float:
    total, until = 0.0, 0.0
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total


def clocks(gpu: bool) -> Spans:
    """Clocks around what may take long. `plan on the GPU` holds `to the GPU`: columns go there when a plan asks for them."""
    from preprocessing.execution import batch, cleaning, reading, tasks
    from preprocessing.features.state import State
    from preprocessing.frames import device
    from preprocessing.history import days
    from preprocessing.output import day, sessions
    from preprocessing.output.profile import Profiles
    from preprocessing.source import index
    from schemas import artifacts

    spans, wait = Spans(), _wait if gpu else (lambda: None)
    spans.wrap(reading, "collect", "read files")
    spans.wrap(index, "_count", "index: hash and count")
    spans.wrap(batch.Spool, "divide", "read: days of rows")
    spans.wrap(tasks, "_rows_made_of", "clean: hash of every row (meanwhile)")
    spans.wrap(cleaning.Cleaning, "run", "clean: plans in all")
    spans.wrap(tasks, "account_of", "clean: account")
    spans.wrap(tasks, "fit_bucket", "clean: fit")
    spans.wrap(batch.Batch, "_merge", "fit: merge states")
    spans.wrap(device, "translate", "translate plans")
    spans.wrap(device, "to_device", "to the GPU", wait)
    spans.wrap(device, "evaluate", "plan on the GPU", wait)
    spans.wrap(device, "from_device", "from the GPU")
    spans.wrap(sessions, "group", "encode: group in all")
    spans.wrap(sessions, "with_lists", "encode: values to the host, list columns")
    spans.wrap(sessions, "_write", "encode: Parquet of sessions (threads)")
    spans.wrap(tasks.items, "latest_by_day", "encode: latest of items")
    spans.wrap(tasks.counts, "count", "encode: profile")
    spans.wrap(batch.Batch, "_with_items", "encode: merge items")
    spans.wrap(Profiles, "of", "commit: profiles")
    spans.wrap(day.DayWriter, "gather", "commit: gather days")
    spans.wrap(day.DayWriter, "put", "commit: write days (threads)")
    spans.wrap(State, "write", "commit: write states (threads)")
    spans.wrap(artifacts, "sha256", "checksum (threads)")
    spans.wrap(artifacts, "sync", "fsync (threads)")
    spans.wrap(days.Days, "enter", "enter into the ledger")
    return spans


def _wait() -> None:
    """For the GPU to have done what was asked of it: a clock would else stop when it was asked."""
    from cuda.bindings import runtime

    runtime.cudaDeviceSynchronize()
