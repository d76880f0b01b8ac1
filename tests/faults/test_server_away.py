"""Prefect's server, or its database, goes away in the middle of a night and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from flows.environment import PATIENT, QUIET
from flows.server import wait_for_server
from tests.databases import postgresql, programs
from tests.flows.conftest import LONG_SECONDS, QUICK, begun, clean_environment, free_port
from tests.slow import slow

AWAY_SECONDS = 10.0
RETRAIN = ("retrain", *QUICK, "--json", "--source")


@contextmanager
def server(environment: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        assert wait_for_server(f"http://127.0.0.1:{port}/api", process, "the server", print, LONG_SECONDS) is None
        yield process
    finally:
        kill(process)


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


def kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.fault("Prefect's server is killed in training and started again", outcome="the night goes on to its end")
def test_a_night_outlives_its_server(shop: Path, tmp_path: Path) -> None:
    port = free_port()
    environment = settings(tmp_path, port)
    begun(tmp_path)
    with ExitStack() as servers:
        first = servers.enter_context(server(environment, port))

        def restart() -> None:
            kill(first)
            time.sleep(AWAY_SECONDS)
            servers.enter_context(server(environment, port))

        night(environment, tmp_path / "root", shop, restart)
    assert (tmp_path / "root" / "champions" / "demo.json").is_file()


@slow
@pytest.mark.fault(
    "PostgreSQL is gone for a minute in training (by hand: OVERNIGHT_SLOW=1)", outcome="the night goes on to its end"
)
def test_a_night_outlives_its_database(shop: Path, tmp_path: Path) -> None:
    port = free_port()
    with TemporaryDirectory() as folder, postgresql(Path(folder)) as url:
        at = url.replace("+psycopg", "+asyncpg")
        environment = settings(tmp_path, port) | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": at}
        control = [str(programs() / "pg_ctl"), "-D", f"{folder}/postgresql/db", "-w"]
        user = None if os.geteuid() else "postgres"

        def away() -> None:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, user=user, cwd="/")
            time.sleep(60)
            listens = f"-p {url.rpartition(':')[2].partition('/')[0]} -c unix_socket_directories={folder}/postgresql"
            again = [*control, "-o", listens, "-l", f"{folder}/postgresql/log", "start"]
            subprocess.run(again, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)

        with server(environment, port):
            night(environment, tmp_path / "root", shop, away)
    assert (tmp_path / "root" / "champions" / "demo.json").is_file()
