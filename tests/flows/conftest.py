"""A tiny shop, and the terminal command run as a person would run it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from filelock import FileLock

from flows import stages
from flows.cli import main
from flows.keeper import below
from flows.night import Stages, run_stages
from flows.night_lock import alone
from flows.reports.progress import Lines
from flows.settings.settings import Settings
from preprocessing.simulate import Shop, simulate
from schemas import places

LONG_SECONDS = 3600  # what no run takes, not even on a busy machine: it ends a test that would hang
QUICK = [  # little training; a first model need not beat popularity to be promoted
    f"--set={change}"
    for change in (
        "body.dim=16",
        "body.num_layers=1",
        "training.epochs=4",
        "training.tokens_per_step=64",
        "training.threads=1",
        "promotion.min_gain=-0.9",
    )
]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days of a shop with 150 users."""
    folder = tmp_path_factory.mktemp("shop")
    simulate(Shop(days=4, users=150, seed=5), folder)
    return folder


START = """
import os, sys
from pathlib import Path
from flows.environment import prepare_environment
from flows.pool import prepare_pool
from flows.server import prefect_server
prepare_environment(Path(sys.argv[1]))
with prefect_server(print) as url:
    prepare_pool(url, os.environ | {"PREFECT_API_URL": url})
"""
ready: list[Path] = []  # the folder of this run of all tests, for a database that is made once


@pytest.fixture(scope="session", autouse=True)
def folder_of_all_processes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where the processes that tests are divided over find what they share."""
    folder = tmp_path_factory.getbasetemp()
    ready[:] = [folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder]


def begun(root: Path) -> Path:
    """An artifact root whose Prefect server has run once, and has the work pool: its database takes 6 seconds of CPU time."""
    home = root / "prefect"
    if not ready or home.exists():
        return root
    made = ready[0] / "begun"
    with FileLock(made.with_suffix(".lock")):
        if not made.exists():
            draft = made.with_suffix(".unfinished")
            subprocess.run(
                [sys.executable, "-c", START, draft], check=True, env=clean_environment(), timeout=LONG_SECONDS
            )
            draft.rename(made)
    shutil.copytree(made / "prefect", home)
    return root


def _begin(arguments: tuple[str | Path, ...], environment: dict[str, str]) -> None:
    """Make ready the root that a command of nights is given, where it is a new one."""
    words = list(map(str, arguments))
    if "--root" in words and words[0] in ("retrain", "backfill") and "PREFECT_HOME" not in environment:
        begun(Path(words[words.index("--root") + 1]))


def overnight(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `overnight` to its end."""
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    environment = environment or clean_environment()
    _begin(arguments, environment)
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG_SECONDS, env=environment)


def overnight_here(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `overnight` does, in this process, which has its modules loaded: for commands without a server or processes.

    Starting Python and loading torch takes more CPU time than most of these commands. `environment` is set for it.
    """
    words = ["overnight", *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    if for_prefect := any(name.startswith("PREFECT_") for name in environment):
        import_module("prefect.context")  # before the variables are set: it keeps what it is imported with
    places.use(())
    with (
        patch.dict(os.environ, clean_environment() | environment, clear=True),
        prefect_settings() if for_prefect else contextlib.nullcontext(),
        patch.object(sys, "argv", words),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:
            code = 1
            traceback.print_exc()
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def prefect_settings() -> Iterator[None]:
    """Prefect's settings read from environment and files as they are now; it would keep those it had when it was imported."""
    from prefect import context

    with patch.object(context, "GLOBAL_SETTINGS_CONTEXT", context.root_settings_context()):
        yield


def night_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`overnight retrain` in this process, whose stages are plain functions: where neither Prefect nor processes are tested.

    A server, a run of it and the process of its stages take four times the CPU time of the stages of a small night.
    """
    with patch("flows.cli._run_flow", _stages_here):
        return overnight_here("retrain", *arguments)


def _stages_here(settings: Settings) -> dict[str, Any]:
    def of(name: str) -> Callable[..., Any]:
        note = Lines(lambda line: print(f"{name!r} - {line}", file=sys.stderr))
        return lambda *given: getattr(stages, name)(*given, note)

    with alone(settings, "night", lambda line: print(line, file=sys.stderr)):
        return run_stages(settings, Stages(**{field.name: of(field.name) for field in fields(Stages)}))


def summary_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What `--json` printed as the last line."""
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_and_kill(until: Callable[[str], bool], *arguments: str | Path) -> tuple[list[str], list[str]]:
    """Run `overnight` and SIGKILL it, with its process group, at the first line for which `until` holds.

    The lines, and the commands of all that it had started: each has ended by itself when this returns.
    """
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    _begin(arguments, clean_environment())
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=clean_environment() | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout
    lines, started = [], dict[Path, str]()
    try:
        for line in process.stdout:
            lines.append(line)
            if until(line):
                started = {place: (place / "cmdline").read_text() for place in map(_place, below(process.pid))}
                break
        else:
            raise AssertionError("".join(["the line to kill at never came:\n", *lines]))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + LONG_SECONDS
    while left := [words for place, words in started.items() if _is(place, words)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    return lines, list(started.values())


def _place(pid: int) -> Path:
    return Path("/proc") / str(pid)


def _is(place: Path, words: str) -> bool:
    """Whether a process runs this command still; one that has ended and is not waited for has none."""
    try:
        return (place / "cmdline").read_text() == words
    except OSError:
        return False


def clean_environment() -> dict[str, str]:
    """The environment without what would point a run elsewhere."""
    elsewhere = ("PREFECT_", "OVERNIGHT_", "MLFLOW_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)}
    return kept | {"OVERNIGHT_MLFLOW": "off"}  # recorded where that is what is tested: it takes seconds a night


def answer_of(request: urllib.request.Request) -> Any:
    """What a server of Prefect answers, as JSON; asked again where it is busy, as its own client does."""
    while True:
        try:
            with urllib.request.urlopen(request, timeout=LONG_SECONDS) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(0.5)


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def listening(answer: int = 200, location: str = "") -> Iterator[tuple[str, list[str]]]:
    """A server that keeps the texts it gets, and its address."""
    messages: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert list(body) == ["text"] and self.headers["Content-Type"] == "application/json"
            messages.append(body["text"])
            self.send_response(answer)
            if location:
                self.send_header("Location", location)
            self.end_headers()

        def do_GET(self) -> None:
            messages.append("")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not to the terminal."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/services/SECRET", messages
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
