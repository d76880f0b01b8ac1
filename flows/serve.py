"""Prefect on this machine alone: a server, a work pool that runs one job at a time, a worker, the nightly deployment.

overnight serve --root overnight-data --source demo-shop
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from flows.server import HOST, startup_seconds, wait_for_server
from flows.serving import serving_at
from schemas.errors import InputError

POOL = "overnight"
PROJECT = Path(__file__).resolve().parents[1]  # where prefect.yaml is


def serve(root: Path, source: str | None, port: int) -> None:
    """Run until Ctrl-C or SIGTERM; then stop the worker, then the server."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), running(root, source, port) as processes:
        _say(f"\nPrefect UI: http://{HOST}:{port}   (Ctrl-C stops server and worker)")
        _say("Start a run now: Deployments > retrain/nightly > Run, or leave it to the nightly schedule.")
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
        raise RuntimeError("server or worker ended by itself; its lines above say why")


@contextlib.contextmanager
def running(root: Path, source: str | None, port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A server and a worker that serve the deployment of prefect.yaml while the block lasts.

    Raises:
        InputError: when the port is taken, the project's prefect.yaml is not there, or the server does not come up.
    """
    if not (PROJECT / "prefect.yaml").is_file():
        raise InputError(f"{PROJECT} has no prefect.yaml: serve runs from a checkout of Overnight.")
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise InputError(f"Port {port} is taken. Give another: overnight serve --port {port + 1}.")
    environment = server_environment(root, source, port)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_start(["server", "start", "--host", HOST, "--port", str(port)], environment))
        url = environment["PREFECT_API_URL"]
        problem = wait_for_server(url, processes[0], "Prefect's server", _say, startup_seconds())
        if problem:
            raise InputError(f"{problem}; its lines above say why.")
        for command in (
            ["work-pool", "create", POOL, "--type", "process", "--overwrite"],
            ["work-pool", "set-concurrency-limit", POOL, "1"],
            ["--no-prompt", "deploy", "--all"],
        ):
            subprocess.run([sys.executable, "-m", "prefect", *command], env=environment, cwd=PROJECT, check=True)
        processes.append(_start(["worker", "start", "--pool", POOL, "--type", "process"], environment))
        with serving_at(url):
            yield processes
    finally:
        for process in reversed(processes):
            _stop(process)


def server_environment(root: Path, source: str | None, port: int) -> dict[str, str]:
    """What server, worker and runs need to find each other, the events and the artifacts."""
    url = f"http://{HOST}:{port}/api"
    environment = {
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_UI_API_URL": url,
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # a lost URL must fail, not start another server
        "OVERNIGHT_ROOT": str(root.resolve()),
    }
    if source:
        environment["OVERNIGHT_SOURCE"] = str(Path(source).resolve())
    return os.environ | environment


def _say(line: str) -> None:
    print(line, flush=True)


def _start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.Popen(command, env=environment, cwd=PROJECT, start_new_session=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it started: politely, then not."""
    for sign, seconds in ((signal.SIGINT, 60), (signal.SIGTERM, 30), (signal.SIGKILL, 30)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
