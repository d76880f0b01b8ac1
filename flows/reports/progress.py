"""Progress of a preparation on a terminal: one bar through the phases of a batch, the lines that came out above it."""

from __future__ import annotations

import re
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PHASES = ("read", "clean", "learn", "encode", "write")
LINE = re.compile(rf"({'|'.join(PHASES)}): (?:.*\((\d+)%\))?")


class PhasesBar:
    """A callable for progress lines. Where the output is no terminal, it prints them as they are."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task: TaskID = self.bar.add_task(PHASES[0], total=len(PHASES))

    def __enter__(self) -> PhasesBar:
        self.bar.start()
        return self

    def __call__(self, line: str) -> None:
        found = LINE.match(line)
        if not found or found[2] is None or self.bar.disable:
            self.console.print(line, markup=False)
        if found:
            place = PHASES.index(found[1])
            done = 1.0 if found[2] is None else int(found[2]) / 100
            now = PHASES[min(place + (found[2] is None), len(PHASES) - 1)]
            self.bar.update(self.task, completed=place + done, description=line if found[2] else now)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
