"""Prefect's server, or its database, goes away in the middle of a night and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.environment import PATIENT, QUIET
from flows.server import wait_for_server
from tests.flows.conftest import LONG_SECONDS, QUICK, clean_environment, free_port

AWAY_SECONDS = 20.0
RETRAIN = ("retrain", *QUICK, "--json", "--source")


@contextmanager
def server(environment: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        assert wait_for_server(f"http://127.0.0.1:{port}/api", process, "the server", print, LONG_SECONDS) is None
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def night(environment: dict[str, str], root: Path, shop: Path, in_training: Callable[[], None]) -> str:
    """A night to its end; `in_training` is called when it trains. What it said."""
    command = [sys.executable, "-m", "flows.cli", *RETRAIN, str(shop), "--root", str(root)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment | {"PYTHONUNBUFFERED": "1"},
    )
    lines, called = [], False
    assert process.stdout
    for line in process.stdout:
        lines.append(line)
        if "loss" in line and not called:
            called = True
            in_training()
    assert process.wait() == 0, "".join(lines)
    assert called, "".join(lines)
    return "".join(lines)


def settings(tmp_path: Path, port: int) -> dict[str, str]:
    at = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_HOME": str(tmp_path / "prefect")}
    return clean_environment() | QUIET | PATIENT | at


@pytest.mark.fault(
    "Prefect's server is killed in training and started again", outcome="the night goes on and ends as usual"
)
def test_a_night_outlives_its_server(shop: Path, tmp_path: Path) -> None:
    port = free_port()
    environment = settings(tmp_path, port)
    with server(environment, port) as first:

        def restart() -> None:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            time.sleep(AWAY_SECONDS)
            again.append(server(environment, port))
            again[0].__enter__()

        again: list[object] = []
        said = night(environment, tmp_path / "root", shop, restart)
    print(said)
    assert "Traceback" not in said
    assert (tmp_path / "root" / "champions" / "demo.json").is_file()
