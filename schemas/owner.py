"""Who holds a lock: which process of which machine, and whether it is gone."""

from __future__ import annotations

import contextlib
import os
import socket
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

RUN = "PREFECT__FLOW_RUN_ID"  # a worker sets it for the run that it starts


class Owner(BaseModel):
    """Who holds a lock. `space` is the process namespace (a container's own), `started` when its process was, in ticks."""

    model_config = ConfigDict(frozen=True)

    host: str
    boot: str
    space: str
    pid: int
    started: str
    what: str
    run: str = ""
    since: datetime

    @classmethod
    def here(cls, what: str, run: str = "") -> Owner:
        """This process, in the run that a worker started it for where none is named."""
        host, boot, space = machine()
        about = {"what": what, "run": run or os.environ.get(RUN, ""), "since": datetime.now(UTC)}
        return cls(host=host, boot=boot, space=space, pid=os.getpid(), started=_started(os.getpid()), **about)

    @property
    def is_here(self) -> bool:
        """Whether its process can be seen from here: the same machine since the same start, the same process namespace."""
        return bool(self.boot) and (self.host, self.boot, self.space) == machine()

    @property
    def is_dead(self) -> bool:
        """Whether its process is surely gone; False where that cannot be seen from here."""
        if not self.is_here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return _started(self.pid) != self.started

    def __str__(self) -> str:
        run = f", run {self.run}" if self.run else ""
        return f"{self.what} (process {self.pid} on {self.host} since {self.since:%Y-%m-%d %H:%M} UTC{run})"


@cache
def machine() -> tuple[str, str, str]:
    """Host, start of the machine, process namespace; the last two are empty where the system does not say."""
    space = ""
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return socket.gethostname(), _text("/proc/sys/kernel/random/boot_id").strip(), space


def _started(pid: int) -> str:
    """When a process was started, in ticks since the machine was; empty where the system does not say, or it has ended."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return "" if len(fields) < 20 or fields[0] == "Z" else fields[19]


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError):
        return ""
