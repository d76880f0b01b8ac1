"""MLflow's UI on this machine alone, while `overnight serve` runs. What is recorded does not go through it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flows.keeper import Keeper, start, stop
from flows.tracking.target import FILES, QUIET, UI, Target, can_show, target_of

# MLflow's other server has an assistant that runs shell commands for whoever reaches the port.
GUNICORN = "--log-level warning --timeout 600"
HOST, PORT, LOG = "127.0.0.1", 5000, "ui.log"


@dataclass
class Shown:
    """Where the UI is, and its process where it is one of ours. `tell` says once that it answers, or that it ended."""

    url: str = ""
    process: Keeper | None = None
    port: int = 0
    log: Path | None = None
    said: list[str] = field(default_factory=list)

    def tell(self, say: Callable[[str], object]) -> None:
        """One line when there is something new to say; no waiting."""
        if not self.url or self.said[-1:] == ["ended"]:
            return
        if self.process and self.process.poll() is not None:
            self.said.append("ended")
            say(f"MLflow's UI ended by itself; nights go on, and are recorded. {self.log} says why.")
        elif not self.said and (not self.process or _answers(self.port)):
            self.said.append("up")
            say(f"MLflow UI: {self.url}")


@contextlib.contextmanager
def showing(root: Path) -> Iterator[Shown]:
    """The UI of what is recorded for a root while the block lasts; a server that is named is only pointed to.

    Runs that begin in the block can say where their page is.
    """
    target = target_of(root.resolve())
    if target is None or target.is_server:
        yield Shown(target.name if target else "")
        return
    if not can_show():
        yield Shown()
        return
    port = _free_port()
    shown = Shown(f"http://{HOST}:{port}", _start(target, port), port, target.folder / LOG)
    before = os.environ.get(UI)
    os.environ[UI] = shown.url
    try:
        yield shown
    finally:
        os.environ.pop(UI) if before is None else os.environ.update({UI: before})
        if shown.process:
            stop(shown.process)


def _start(target: Target, port: int) -> Keeper:
    """The addresses of databases go by the environment: they may hold a password, and commands are seen by all."""
    target.folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | QUIET
    environment["MLFLOW_BACKEND_STORE_URI"] = target.uri
    environment["MLFLOW_REGISTRY_STORE_URI"] = target.registry
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--default-artifact-root", (target.folder / FILES).as_uri()]
    command += ["--gunicorn-opts", GUNICORN]
    with (target.folder / LOG).open("wb") as log:  # a line for each request, and a traceback when it is stopped
        return start(command, environment, target.folder, output=log)


def _free_port() -> int:
    """MLflow's own, or any other where that is taken."""
    for port in (PORT, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    return PORT


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((HOST, port)) == 0
