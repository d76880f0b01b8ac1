"""Start the processes that train together on this machine, one on each GPU or all on its CPU, or take part in torchrun's."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import get_context, start_processes
from torch.multiprocessing.spawn import ProcessException

from modeling.training import distributed
from schemas import lock, places
from schemas.errors import InputError

Report = Callable[[Any], object]
Work = Callable[[Report], object]
SECONDS_PER_LOOK = 0.2
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


def together(work: Work, count: int, report: Report) -> None:
    """Do `work` in `count` processes that train together; it can be pickled, and receives where to report to.

    One of those that torchrun started takes part in it; any other process starts them and waits. The first one reports.

    Raises:
        InputError: that of a process, and for more processes than GPUs.
    """
    if distributed.num_processes() > 1:
        _take_part(work, report)
    elif int(os.environ.get("WORLD_SIZE") or 1) > 1:
        with distributed.joined():
            _take_part(work, report)
    else:
        _require_gpus(count)
        _start(work, count, report)


def _take_part(work: Work, report: Report) -> None:
    work(report if distributed.is_first() else _say_nothing)
    distributed.wait()  # for what the first one writes


def _say_nothing(line: object) -> None:
    pass


def _require_gpus(count: int) -> None:
    if torch.cuda.is_available() and count > (gpus := torch.cuda.device_count()):
        raise InputError(
            f"training.devices (--devices) is {count}, but this machine shows {gpus} GPU{'s' * (gpus > 1)} "
            f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}). Give at most {gpus}."
        )


def _start(work: Work, count: int, report: Report) -> None:
    """Start the processes, pass on what the first one reports, and end them all with the first that fails."""
    reports: SimpleQueue[Any] = get_context("spawn").SimpleQueue()
    mistakes: list[str] = []

    def pass_on() -> None:
        while not reports.empty():
            said = reports.get()
            if isinstance(said, InputError):
                mistakes.append(str(said))
            else:
                report(said)

    with tempfile.TemporaryDirectory(prefix="overnight-") as folder:
        given = (count, str(Path(folder) / "store"), work, places.searched(), reports, lock.lend())
        started = start_processes(_process, given, count, join=False, daemon=True, start_method="spawn")
        try:
            while not started.join(SECONDS_PER_LOOK):
                pass_on()
                lock.require_held()  # theirs is this process's
        except ProcessException:
            pass_on()
            if mistakes:
                raise InputError(mistakes[0]) from None
            raise
        finally:
            for process in started.processes:
                process.terminate()
                process.join()
        pass_on()


def _process(
    number: int,
    count: int,
    store: str,
    work: Work,
    folders: tuple[Path, ...],
    reports: SimpleQueue[Any],
    locks: tuple[lock.Lent, ...],
) -> None:
    """One of the processes, which writes only as long as the one that started it holds its locks, and ends with it."""
    _die_with_parent()
    places.use(folders)
    with lock.borrowing(locks), distributed.joined(number, count, dist.FileStore(store, count)):
        try:
            _take_part(work, reports.put)
        except InputError as error:
            reports.put(InputError(str(error)))
            raise


def _die_with_parent() -> None:
    """Be killed when the process that started this one is gone, however it ended: torch would interrupt it, which may be passed
    over in a destructor, and takes seconds. What is on the disk outlives a kill at any moment.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        parent = parent_process()
        if parent and parent.pid != os.getppid():  # it was gone before that
            os.kill(os.getpid(), signal.SIGKILL)
