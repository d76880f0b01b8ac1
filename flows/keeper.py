"""Runs a command and ends it with everything it started: when asked to, and when whoever started this keeper is gone.

    python flows/keeper.py COMMAND...     standard input is a pipe that the starter holds open

A worker starts runs in sessions of their own, and a run starts processes that train: a signal to the worker's group does not
reach them. On Linux the keeper adopts what loses its parent, so that all of it stays in the tree below it. Elsewhere it ends
the group alone.

Run as a script, this file is the keeper. It imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

POLITE_SECONDS = 60  # for the command to end by itself after SIGINT, then after SIGTERM
LAST_SECONDS = 30  # for what it started, to report that it was stopped; then it is killed
ADOPT = 36  # PR_SET_CHILD_SUBREAPER of Linux
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
PROCESSES = Path("/proc")
CLOSED = threading.Event()


def start(
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    held: tuple[int, ...] = (),
    log: IO[bytes] | None = None,
) -> Keeper:
    """Start a command under a keeper. The descriptors in `held` stay open until all that it started is gone.

    What it prints goes to `log`, else to where this process prints.
    """
    keeper = [sys.executable, "-P", str(Path(__file__).resolve()), *command]
    return subprocess.Popen(
        keeper,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=environment,
        cwd=folder,
        pass_fds=held,
        start_new_session=True,
    )


def stop(keeper: Keeper) -> None:
    """End a command and everything that it started; return when all of it is gone."""
    if keeper.stdin:
        with contextlib.suppress(OSError):
            keeper.stdin.close()
    try:
        keeper.wait(2 * POLITE_SECONDS + 3 * LAST_SECONDS)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


Keeper = subprocess.Popen[bytes]


def keep(command: list[str]) -> int:
    """Run a command until it ends, the pipe to standard input closes or SIGTERM comes; its exit code."""
    _control(ADOPT, 1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: CLOSED.set())
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_with_parent)
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()
    while process.poll() is None and not CLOSED.wait(0.2):
        _reap(process.pid)
    for number in (signal.SIGINT, signal.SIGTERM):
        if _signal_and_wait(process, number, POLITE_SECONDS):
            break
    _end_all(process)
    return process.wait()


def below(parent: int) -> list[int]:
    """The processes below one, those nearest to it first; empty where the system has no /proc."""
    children: dict[int, list[int]] = {}
    for place in PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, of = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(of), []).append(int(place.name))
    tree = [parent]
    for process in tree:
        tree += children.get(process, [])
    return tree[1:]


def _signal_and_wait(process: subprocess.Popen[bytes], number: int, seconds: float) -> bool:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to what is left, so that a run can say that it was stopped; then SIGKILL until nothing is left."""
    asked: set[int] = set()
    deadline = time.monotonic() + LAST_SECONDS
    while left := below(os.getpid()):
        late = time.monotonic() > deadline
        for pid in left:
            if late or pid not in asked:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                asked.add(pid)
        process.poll()
        _reap(process.pid)
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group, where there is no /proc
        os.killpg(process.pid, signal.SIGKILL)


def _reap(command: int) -> None:
    """Take note of the end of adopted processes, which nobody else waits for; the command itself is waited for elsewhere."""
    children = PROCESSES / "self" / "task" / str(os.getpid()) / "children"
    with contextlib.suppress(OSError):
        for child in map(int, children.read_text().split()):
            if child != command:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child, os.WNOHANG)


def _wait_for_end_of_input() -> None:
    """The pipe to standard input closes when the starter ends, however it ends."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    CLOSED.set()


def _with_parent() -> None:
    _control(DIE_WITH_PARENT, signal.SIGTERM)


def _control(option: int, value: int) -> None:
    """prctl of Linux; elsewhere nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
