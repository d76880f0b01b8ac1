"""How processes end: commands that are asked to, and why one that did a stage ended before it had a result, in one line."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SIGNALS = 192  # codes of a keeper above this say that a signal ended its command: 256 less its number
FAULTS = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS")
OWN_GROUP, GROUPS, MACHINE = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"), Path("/proc/vmstat")
SAME_SECONDS = 2.0
AGAIN = "Run it again: finished stages stay, and training goes on from its last checkpoint."
LESS = "To need less: a lower training.tokens_per_step or body.dim, or fewer days (--days)."


@contextlib.contextmanager
def in_order() -> Iterator[None]:
    """While the block lasts, SIGTERM and SIGHUP end it as an exception does: locks are given back, its processes and files
    removed. Then they end this process, as they would have. What is ignored (nohup) or handled elsewhere stays so.

    A further one within `SAME_SECONDS` is the same request: `timeout` sends two, a terminal that closes does too. Later ones
    interrupt what is still being removed.
    """
    ours: list[signal.Signals] = []
    came: list[int] = []
    ends_at = float("-inf")

    def leave(number: int, _: object) -> None:
        nonlocal ends_at
        if time.monotonic() - ends_at < SAME_SECONDS:
            return
        ends_at = time.monotonic()
        came.append(number)
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if came:
            with contextlib.suppress(OSError):  # whoever read it may be gone
                sys.stdout.flush()
            os.kill(os.getpid(), came[0])


def describe_end(stage: str, code: int, last_line: str = "", *, no_memory: bool = False) -> str:
    """The line for a process that a keeper ended with `code`; `no_memory` where the kernel is known to have killed some."""
    name = name_of(256 - code) if code > SIGNALS else ""
    if name == "SIGKILL":
        return killed(stage, no_memory=no_memory)
    said = f" Its last line: {last_line}" if last_line else ""
    if name in FAULTS:
        how = f"was ended by a fault of native code ({name}), of a library or a driver"
    else:
        how = f"was ended by {name} from outside" if name else f"ended with code {code}"
    return f"The stage {stage} has no result: its process {how}. {AGAIN}{said}"


def killed(stage: str, *, no_memory: bool = False) -> str:
    """The line for a process that was killed."""
    why = (
        "by the kernel, as memory ran out"
        if no_memory
        else "as the kernel does where memory runs out (`dmesg` says whether it was that), or by hand"
    )
    return f"The stage {stage} has no result: its process was killed (SIGKILL), {why}. {AGAIN} {LESS}"


def name_of(number: int) -> str:
    """SIGKILL for 9."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def num_kills() -> int:
    """How often the kernel has killed a process for want of memory: of this service or container; 0 where it does not say.

    A memory limit of their own is counted with them, by either version of control groups; else all kills of the machine are.
    """
    for file in (*_own_counts(), MACHINE):
        with contextlib.suppress(OSError, ValueError):
            for line in file.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _own_counts() -> Iterator[Path]:
    """Where the group of this process may be counted. A container may see its own group as the top, under the host's name."""
    with contextlib.suppress(OSError):
        for line in OWN_GROUP.read_text().splitlines():
            _, kinds, name = line.split(":", 2)
            if not kinds:
                yield from (GROUPS / name[1:] / "memory.events", GROUPS / "memory.events")
            elif "memory" in kinds.split(","):
                yield from (
                    GROUPS / "memory" / name[1:] / "memory.oom_control",
                    GROUPS / "memory" / "memory.oom_control",
                )
