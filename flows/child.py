"""What trains and measures, in a process of its own under a keeper: its end ends no run, and the end of a run ends it.

    with Child() as child:
        model = child.does(stages.train)(settings, sessions, progress)

    run  >  flows/keeper.py  >  flows/child_process.py  >  the processes of several devices

The process is started when there is work for it. It stays for the stages that follow, so that torch is loaded once and not by
the run at all, and gives its memory back, a GPU's too, when it ends. What is done already is found by the run itself.

Where it is killed, by the kernel for want of memory most of all, or ends by a fault of native code, the stage fails with one
line. When the run is cancelled, is stopped by Ctrl-C, is killed, or its stage has no time left, the keeper ends the process
and all that it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from flows import keeper, stages
from flows.child_output import Output
from flows.endings import describe_end, num_kills
from flows.in_service import InService
from flows.orders import Message, Order
from flows.settings.settings import Settings
from schemas import lock
from schemas.artifacts import Artifacts, Manifest
from schemas.errors import InputError, StageEndedError
from schemas.finished import WorkToDoError
from schemas.progress import Progress

OnProgress = Callable[[Progress | str], object]
Made = TypeVar("Made", Manifest, Manifest | None)
LOOK_SECONDS = 1.0  # between two looks at the lock; a time limit set by another thread is noticed as late as this
END_SECONDS = 5.0  # to end after SIGINT, and again after SIGTERM: a run that is cancelled has 30 in all
CLOSE_SECONDS = 60.0  # to end by itself when there is nothing more to do
START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from flows.child_process import main; main()"


class Child:
    """A process that does stages for this one. It begins with the first stage that has work, and ends with the block."""

    def __init__(self) -> None:
        self._process: keeper.Keeper | None = None
        self._output: Output
        self._orders: int
        self._kills: int  # by the kernel, before the process was started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def does(self, stage: Callable[..., Made]) -> Callable[..., Made]:
        """`stage(settings, *manifests, progress)`, done by the process where there is anything to do.

        Raises:
            InputError: as the stage does, and LostLockError.
            StageEndedError: when the process ended without a result.
            FailedStageError: for other exceptions of the stage.
        """

        @wraps(stage)
        def run(settings: Settings, *given: Any) -> Made:
            *inputs, progress = given
            with contextlib.suppress(WorkToDoError):
                return _look_up(stage, settings, inputs, progress)
            made: Made = self._ask(Order.of(stage.__name__, settings, tuple(inputs)), progress)
            return made

        return run

    def promotes(self) -> Callable[..., InService]:
        """`stages.promote`, whose refit the process does."""

        @wraps(stages.promote)
        def run(settings: Settings, comparison: Manifest, progress: OnProgress) -> InService:
            return stages.promote(settings, comparison, progress, refit=self.does(stages.refit))

        return run

    def end(self) -> None:
        """End the process and all that it started; return when nothing of it is left."""
        if self._process:
            os.close(self._orders)  # it ends by itself
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
            self._stop(self._process)

    def _ask(self, order: Order, progress: OnProgress) -> Any:
        process = self._process or self._start()
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended; how, is said below
                _write(self._orders, order.line().encode())
            last = self._listen(progress)
        except BaseException:  # cancelled, Ctrl-C, no time left, the lock lost
            os.close(self._orders)
            self._stop(process)
            raise
        if last is None:
            os.close(self._orders)
            self._stop(process)
            more = num_kills() > self._kills
            raise StageEndedError(describe_end(order.stage, process.returncode, self._output.last_line, no_memory=more))
        if last.failure:
            if last.failure.trace:
                progress(last.failure.trace)
            raise last.failure.error()
        assert last.result and order.data.root
        if last.result.name is None:
            return None
        return Artifacts(order.data.root).get(last.result.name).model_copy(update={"reused": last.result.reused})

    def _listen(self, progress: OnProgress) -> Message | None:
        """Pass on what the process says, up to its result or failure, which is returned; None where it ended before."""
        self._output.begin()
        while (messages := self._output.wait(LOOK_SECONDS)) is not None:
            lock.require_held()
            for message in messages:
                if message.result or message.failure:
                    return message
                progress(message.report())
        return None

    def _start(self) -> keeper.Keeper:
        reading, self._orders = os.pipe()
        self._kills = num_kills()
        try:
            self._process = keeper.start(
                [sys.executable, "-P", "-c", START, json.dumps(sys.path)],
                dict(os.environ),
                Path.cwd(),
                stdin=reading,
                output=subprocess.PIPE,
                seconds=END_SECONDS,
            )
        except BaseException:
            os.close(self._orders)
            raise
        finally:
            os.close(reading)
        self._output = Output(self._process)
        return self._process

    def _stop(self, process: keeper.Keeper) -> None:
        self._process = None
        self._output.close()
        keeper.stop(process)


def _look_up(stage: Callable[..., Made], settings: Settings, inputs: list[Manifest], progress: OnProgress) -> Made:
    """What a stage made before.

    Raises:
        WorkToDoError: when it has not.
        InputError: as the stage does before its work, and where what it is given is gone.
    """
    for given in inputs:
        settings.artifacts.reread(given.name)
    reports: list[Progress | str] = []
    try:
        made = stage(replace(settings, only_finished=True), *inputs, reports.append)
    except InputError:
        _pass_on(reports, progress)
        raise
    _pass_on(reports, progress)
    return made


def _pass_on(reports: list[Progress | str], progress: OnProgress) -> None:
    for report in reports:
        progress(report)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
