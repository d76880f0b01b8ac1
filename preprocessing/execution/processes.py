"""Processes of this machine that run tasks: each is a fork of one process that has imported what tasks import, once.

The process that is forked has never run a plan: all its threads are those of allocators, which outlive a fork. That of the
night has pools of threads, which would be lost in the middle of what they hold.

    night (Processes: a thread a worker) --socket--> python -m preprocessing.execution.processes --fork--> workers

All begin with the first task: a night that has none to hand out does not pay for them.

A worker that dies is replaced, and what it was doing is done again, `RETRIES` times at most. Workers end when the night does,
however that ends, in the middle of a task, too: the night that goes on after one that was killed finds nobody in its scratch.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from threading import Lock
from typing import Any

from preprocessing.execution.memory import keep_memory

RETRIES = 3
# Workers are the parallelism, so what runs in one has a single thread. Read when Polars first runs, and when numpy is imported.
SINGLE = {"POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# What tasks import, also when they first need it: here it is imported once, and not by every worker.
NEEDED = ("preprocessing.execution.tasks", "preprocessing.engines.polars", "pyarrow.compute")
PARTS = ("preprocessing.checks", "preprocessing.encoders", "preprocessing.steps")


class Processes(Executor):
    """`count` workers, each a process; as an executor it takes functions that can be imported there."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count)
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        self._count, self._beginning = count, Lock()
        self._forked: subprocess.Popen[bytes] | None = None

    def _begin(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            # The path of this process, in which people's own modules may be found.
            command = [
                sys.executable,
                "-c",
                f"import sys; sys.path[:] = {sys.path!r}; import {__name__} as p; p.fork()",
            ]
            environment = os.environ | SINGLE
            keep_memory(environment, threads=1, forks=True)
            self._forked = subprocess.Popen(command, stdin=theirs.fileno(), env=environment)
        for _ in range(self._count):
            self._idle.put(self._new())

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on the next worker that is idle."""
        with self._beginning:
            if self._forked is None:
                self._begin()
        return self._threads.submit(self._run, function, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all workers, after what they are doing."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        while not self._idle.empty():
            self._idle.get().close()
        if self._forked:
            self._control.close()
            self._forked.wait()

    def _new(self) -> Connection:
        """A worker: the end of a socket at whose other end it listens.

        Raises:
            RuntimeError: when the process that makes workers has ended.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
        except ConnectionError as error:
            assert self._forked
            raise RuntimeError(
                f"The process that makes workers has ended (exit status {self._forked.wait()}; -9 is often a lack of memory). "
                "Run with fewer --workers, or without: what is done already is not done again."
            ) from error
        return Connection(ours.detach())

    def _run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        worker = self._idle.get()
        try:
            for again in range(RETRIES, -1, -1):
                try:
                    worker.send((function, args, kwargs))
                    done, result = worker.recv()
                    break
                except (EOFError, ConnectionError) as error:
                    if not again:
                        raise RuntimeError(f"A worker died {RETRIES + 1} times over the same task.") from error
                    worker.close()
                    worker = self._new()
        finally:
            self._idle.put(worker)
        if done:
            return result
        raise result


def fork() -> None:
    """Import what tasks need, then make a worker for each socket that comes in through stdin, until that is closed."""
    import gc
    import importlib
    import pkgutil
    import signal

    for module in NEEDED:
        importlib.import_module(module)
    for package in PARTS:
        folder = importlib.import_module(package).__path__
        for part in pkgutil.iter_modules(folder):
            importlib.import_module(f"{package}.{part.name}")

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started the night decides; Ctrl-C reaches all of a terminal's
    workers: set[int] = set()
    signal.signal(signal.SIGCHLD, lambda *_: _reap(os.WNOHANG, workers))
    gc.freeze()  # what is collected in a worker would have to be copied first
    with socket.socket(fileno=os.dup(0)) as control:
        while True:
            message, sockets, *_ = socket.recv_fds(control, 1, 1)
            if not message:
                break
            if worker := os.fork():
                workers.add(worker)
            else:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                control.close()
                os.close(0)
                _serve(Connection(sockets[0]))
                os._exit(0)
            os.close(sockets[0])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _reap(os.WNOHANG, workers)
    for worker in workers:  # of a night that has ended as it should, none has anything to do
        os.kill(worker, signal.SIGKILL)
    _reap(0, workers)


def _reap(options: int, workers: set[int]) -> None:
    """Wait for workers that have ended, or for all: their CPU seconds then count as those of the process that forked them."""
    with suppress(ChildProcessError):
        while ended := os.waitpid(-1, options)[0]:
            workers.discard(ended)


def _serve(night: Connection) -> None:
    with suppress(EOFError, ConnectionError):  # the night is over
        while True:
            function, args, kwargs = night.recv()
            try:
                answer = (True, function(*args, **kwargs))
            except BaseException as error:  # that of a panic of Polars is no Exception
                answer = (False, _as_sent(error))
            night.send(answer)


def _as_sent(error: BaseException) -> Exception:
    """An error that the night can read, which knows nothing but what is pickled: itself, or another that says the same."""
    with suppress(Exception):
        if isinstance(error, Exception) and str(ForkingPickler.loads(ForkingPickler.dumps(error))) == str(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")
