"""Why a process that did a stage ended before it had a result, in one line."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

SIGNALS = 192  # codes of a keeper above this say that a signal ended its command: 256 less its number
FAULTS = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS")
EVENTS = Path("/sys/fs/cgroup/memory.events")  # of the container, or of the service
AGAIN = "Run it again: finished stages stay, and training goes on from its last checkpoint."
LESS = "To need less: a lower training.tokens_per_step or body.dim, or fewer days (--days)."


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
    """How often the kernel has killed a process of this container for want of memory; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in EVENTS.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
