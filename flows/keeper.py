"""Runs a command and ends it with everything it started: when asked to, and when whoever started this keeper is gone.

    python flows/keeper.py [--stdin=DESCRIPTOR] [--seconds=SECONDS] COMMAND...

Standard input is a pipe that the starter holds open, and writes to when it asks for the end. The command reads from
DESCRIPTOR, else from nothing. A code above 192 says that the command was ended by a signal: 256 less its number.

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
FALLBACK_SECONDS = 1.0  # between two looks at the command, where no signal says that it ended
CLOSED = threading.Event()
ABANDONED = threading.Event()  # the starter is gone, and has not asked for the end
WOKEN = threading.Event()


def start(
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    held: tuple[int, ...] = (),
    *,
    stdin: int | None = None,
    output: int | IO[bytes] | None = None,
    seconds: float | None = None,
) -> Keeper:
    """Start a command under a keeper. The descriptors in `held` stay open until all that it started is gone.

    The command reads from `stdin` (None: from nothing) and writes to `output`, a file or a constant of subprocess (None: where
    this process does). Asked to end, it has `seconds` after SIGINT, and again after SIGTERM, before it is killed; where the
    starter is gone it is killed at once. None: a minute, in both cases.
    """
    options = [] if stdin is None else [f"--stdin={stdin}"]
    options += [] if seconds is None else [f"--seconds={seconds}"]
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).resolve()), *options, *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        env=environment,
        cwd=folder,
        pass_fds=held if stdin is None else (*held, stdin),
        start_new_session=True,
    )


def stop(keeper: Keeper) -> None:
    """End a command and everything that it started; return when all of it is gone."""
    if keeper.stdin and not keeper.stdin.closed:
        with contextlib.suppress(OSError):
            keeper.stdin.write(b"end")
            keeper.stdin.flush()
        with contextlib.suppress(OSError):
            keeper.stdin.close()
    try:
        keeper.wait(2 * POLITE_SECONDS + 3 * LAST_SECONDS)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


Keeper = subprocess.Popen[bytes]


def keep(command: list[str], stdin: int | None = None, seconds: float | None = None) -> int:
    """Run a command until it ends, the pipe to standard input closes or SIGTERM comes; its exit code.

    `stdin` and `seconds` as of `start`.
    """
    polite, last = (POLITE_SECONDS, LAST_SECONDS) if seconds is None else (seconds, seconds)
    _control(ADOPT, 1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: _close())
    signal.signal(signal.SIGCHLD, lambda *_: WOKEN.set())
    reads = subprocess.DEVNULL if stdin is None else stdin
    process = subprocess.Popen(command, stdin=reads, start_new_session=True, preexec_fn=_with_parent)
    if stdin is not None:
        os.close(stdin)
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()
    while process.poll() is None and not CLOSED.is_set():
        WOKEN.wait(FALLBACK_SECONDS)
        WOKEN.clear()
        _reap(process.pid)
    if ABANDONED.is_set() and seconds is not None:  # nobody waits for it, and another run may
        polite = last = 0.0
    for number in (signal.SIGINT, signal.SIGTERM):
        if _signal_and_wait(process, number, polite):
            break
    _end_all(process, last)
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


def _end_all(process: subprocess.Popen[bytes], seconds: float) -> None:
    """SIGTERM to what is left, so that a run can say that it was stopped; then SIGKILL until nothing is left."""
    asked: set[int] = set()
    deadline = time.monotonic() + seconds
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
    asked = b""
    with contextlib.suppress(OSError):
        asked = os.read(0, 4096)
    if not asked:
        ABANDONED.set()
    _close()


def _close() -> None:
    CLOSED.set()
    WOKEN.set()


def _with_parent() -> None:
    _control(DIE_WITH_PARENT, signal.SIGTERM)


def _control(option: int, value: int) -> None:
    """prctl of Linux; elsewhere nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _main(words: list[str]) -> int:
    options: dict[str, float] = {}
    while words[0].startswith("--"):
        name, _, value = words.pop(0).removeprefix("--").partition("=")
        options[name] = float(value)
    code = keep(words, int(options["stdin"]) if "stdin" in options else None, options.get("seconds"))
    return code if code >= 0 else 256 + code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
