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
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import InputError

HOST, POOL = "127.0.0.1", "overnight"
PROJECT = Path(__file__).resolve().parents[1]  # where prefect.yaml is
PATIENCE_SECONDS = 120


def serve(root: Path, source: str | None, port: int) -> None:
    """Run until Ctrl-C or SIGTERM; then stop the worker, then the server."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), running(root, source, port) as processes:
        print(f"\nPrefect UI: http://{HOST}:{port}   (Ctrl-C stops server and worker)", flush=True)
        print("Start a run now: Deployments > retrain/nightly > Run, or leave it to the nightly schedule.", flush=True)
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
        raise RuntimeError("server or worker ended by itself; its lines above say why")


@contextlib.contextmanager
def running(root: Path, source: str | None, port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A server and a worker that serve the deployment of prefect.yaml while the block lasts.

    Raises:
        InputError: when the port is taken or the project's prefect.yaml is not there.
        RuntimeError: when the server does not come up.
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
        _wait_for(f"http://{HOST}:{port}/api/health", processes[0])
        for command in (
            ["work-pool", "create", POOL, "--type", "process", "--overwrite"],
            ["work-pool", "set-concurrency-limit", POOL, "1"],
            ["--no-prompt", "deploy", "--all"],
        ):
            subprocess.run([sys.executable, "-m", "prefect", *command], env=environment, cwd=PROJECT, check=True)
        processes.append(_start(["worker", "start", "--pool", POOL, "--type", "process"], environment))
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


def _start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.Popen(command, env=environment, cwd=PROJECT, start_new_session=True)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.3)
    ended = f"ended with code {process.poll()}" if process.poll() is not None else f"took over {PATIENCE_SECONDS} s"
    raise RuntimeError(f"The Prefect server at {url} {ended} before it answered; its lines above say why.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it started: politely, then not."""
    for sign, seconds in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
