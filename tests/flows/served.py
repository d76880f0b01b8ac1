"""`overnight serve` with a real server and worker, and the runs of its deployments."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.environment import AUTH_OF_SERVER
from flows.keeper import below
from tests.flows.conftest import LONG_SECONDS, answer_of, begun, clean_environment, free_port

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
ASK_EVERY = 1.0  # seconds: an answer of the server costs CPU time, too
SHORT = {"training": {"epochs": 1, "threads": 1}, "evaluation": {"baselines": ["popularity"]}}
LONG = {"training": {"epochs": 1000, "patience": 1000, "threads": 1, "tokens_per_step": 32}}

# Hanging up is not ignored, as it is where these tests run under nohup: what is started would outlive this.
STARTER = """import signal, subprocess, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
subprocess.run(sys.argv[1:])"""


@dataclass
class Served:
    """A server that is up, and what started it."""

    process: subprocess.Popen[bytes]
    root: Path
    port: int
    headers: dict[str, str]
    log: Path

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"} | self.headers,
        )
        return answer_of(request)

    def begin(self, parameters: dict[str, Any]) -> str:
        """A run of the nightly deployment as its schedule makes it; its id."""
        deployment = self.ask("GET", "/deployments/name/retrain/nightly")
        body = {"parameters": deployment["parameters"] | parameters, "state": {"type": "SCHEDULED"}}
        run: str = self.ask("POST", f"/deployments/{deployment['id']}/create_flow_run", body)["id"]
        return run

    def state(self, run: str) -> str:
        name: str = self.ask("GET", f"/flow_runs/{run}")["state"]["name"]
        return name

    def is_over(self, run: str) -> bool:
        state = self.ask("GET", f"/flow_runs/{run}")["state"]
        return state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    def train(self) -> str:
        """A night that trains until it is stopped."""
        run = self.begin(LONG)
        trains = {"task_runs": {"name": {"any_": ["train"]}, "state": {"name": {"any_": ["Running"]}}}}
        wait_until(lambda: self.ask("POST", "/task_runs/filter", trains), ASK_EVERY)
        wait_until(lambda: any(self.root.glob("unfinished/*")))
        return run


def wait_until(holds: Callable[[], Any], every: float = 0.2) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(every)


def of_root(root: Path) -> list[int]:
    """All processes that serve this root or run for it."""
    wanted, pids = f"OVERNIGHT_ROOT={root}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                pids.append(int(place.name))
    return pids


def is_there(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def served(
    root: Path, shop: Path, *options: str, shell: bool = False, auth: str = "", **environment: str
) -> Iterator[Served]:
    """`overnight serve`; with `shell`, started by another process that waits for it; `auth` is NAME:PASSWORD to ask for.

    `options` are further ones of the command; `environment` is set for it.
    """
    port = free_port()
    begun(root)
    words = [
        sys.executable,
        "-m",
        "flows.cli",
        "serve",
        "--root",
        str(root),
        "--source",
        str(shop),
        "--port",
        str(port),
        *options,
    ]
    command = [sys.executable, "-c", STARTER, *words] if shell else words
    log = root.parent / f"served-{port}.txt"
    with log.open("w") as lines:
        process = subprocess.Popen(
            command,
            env=clean_environment()
            | {"OVERNIGHT_ROOT": str(root), "PREFECT_WORKER_QUERY_SECONDS": "2"}  # of 10: runs wait for less
            | ({AUTH_OF_SERVER: auth} if auth else {})
            | environment,
            stdout=lines,
            stderr=lines,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "Prefect UI:" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        headers = {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth else {}
        yield Served(process, root, port, headers, log)
    finally:
        for pid in [process.pid, *below(process.pid), *of_root(root)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def stopped_in_training(night: Served, number: int) -> None:
    """Stop what started the server in the middle of a night: no process is left."""
    night.train()
    pids = of_root(night.root)
    assert len(pids) > 4  # serve, server, worker, the run, and those that keep them
    os.kill(night.process.pid, number)
    night.process.wait(LONG_SECONDS)
    wait_until(lambda: not of_root(night.root))
    assert not any(map(is_there, pids))
