"""The process that does stages for a run (`flows.child`): orders on standard input, messages on standard output.

All else that is written in it, by libraries and by the processes of several devices too, goes to its errors.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from flows import stages
from flows.endings import describe_end
from flows.orders import Failure, Message, Order, Result
from schemas import lock, places
from schemas.errors import StageEndedError
from schemas.machine import in_words
from schemas.progress import Progress

FIRST_TO_GO = 300  # of 1000: where memory runs out, the kernel takes this process rather than the run or a server
Say = Callable[[Message], object]


def main() -> None:
    """Do what is ordered until no more can come."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as messages:
        os.dup2(2, 1)
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(line_buffering=True)
        faulthandler.enable()
        signal.signal(signal.SIGTERM, _end)
        _go_first()

        def say(message: Message) -> None:
            messages.write(message.line())
            messages.flush()

        try:
            for line in sys.stdin.buffer:
                say(answer(Order.read(line), say))
        except (KeyboardInterrupt, BrokenPipeError):  # the run was stopped, or is gone
            os._exit(128 + signal.SIGINT)


def answer(order: Order, say: Say) -> Message:
    """Do a stage -> its result, or its failure."""

    def progress(report: Progress | str) -> None:
        say(Message.reporting(report))

    try:
        with lock.borrowing(order.locks), in_words():
            places.use(order.dataset.plugins)
            settings = order.settings()
            inputs = [settings.artifacts.reread(name) for name in order.inputs]
            made = getattr(stages, order.stage)(settings, *inputs, progress)
    except BrokenPipeError:
        raise
    except Exception as error:
        return Message(failure=Failure.of(_explained(order.stage, error)))
    return Message(result=Result(name=made.name, reused=made.reused) if made else Result(name=None))


def _explained(stage: str, error: Exception) -> Exception:
    """A death of one of several devices' processes as that of the stage's own."""
    name = getattr(error, "signal_name", None)  # of torch.multiprocessing's ProcessExitedException
    if name and (number := getattr(signal, str(name), None)):
        return StageEndedError(describe_end(stage, 256 - number))
    return error


def _go_first() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO))


def _end(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)
