"""Prefect on this machine alone: a server, a pool that runs one night at a time, a worker, the deployments of prefect.yaml.

overnight serve --root overnight-data --source demo-shop
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.keeper import Keeper, start, stop
from flows.night_lock import is_under_way
from flows.pages import pages_of
from flows.pool import POOL, end_dead_runs, prepare_pool
from flows.server import HOST, startup_seconds, wait_for_server
from flows.serving import serving_at
from schemas.errors import InputError

PROJECT = Path(__file__).resolve().parents[1]  # where prefect.yaml is
STOP = (signal.SIGTERM, signal.SIGHUP)  # as Ctrl-C


def serve(root: Path, source: str | None, port: int) -> None:
    """Run until Ctrl-C, SIGTERM, or the end of the process that started it; then stop runs, worker and server.

    Where SIGHUP is ignored (nohup) or the process leads a session of its own (setsid, a service), it outlives its starter.
    """
    for number in STOP:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    orphaned = _starter_is_gone()
    with contextlib.suppress(KeyboardInterrupt), pages_of(root) as pages, running(root, source, port) as processes:
        _say(f"\nPrefect UI: http://{HOST}:{port}   (Ctrl-C stops runs, worker and server)")
        _say(f"Reports and days, linked from runs: {pages}")
        _say("Start a run now: Deployments > retrain/nightly > Run, or leave it to the nightly schedule.")
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
            if orphaned():
                raise KeyboardInterrupt
        raise RuntimeError("server or worker ended by itself; its lines above say why")


@contextlib.contextmanager
def running(root: Path, source: str | None, port: int) -> Iterator[list[Keeper]]:
    """A server and a worker that serve the deployments of prefect.yaml while the block lasts.

    Runs that an earlier server took down with it are marked Crashed before the worker begins. When the block ends nothing that
    was started in it is left, a run's own processes included.

    Raises:
        InputError: when another server is up for the same $PREFECT_HOME, the port is taken, the project's prefect.yaml is not
            there, or the server does not come up.
    """
    if not (PROJECT / "prefect.yaml").is_file():
        raise InputError(f"{PROJECT} has no prefect.yaml: serve runs from a checkout of Overnight.")
    environment = server_environment(root, source, port)
    url = environment["PREFECT_API_URL"]
    processes: list[Keeper] = []
    with serving_at(url, _say) as held:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                raise InputError(f"Port {port} is taken. Give another: overnight serve --port {port + 1}.")
        try:
            processes.append(_start(["server", "start", "--host", HOST, "--port", str(port)], environment, held))
            problem = wait_for_server(url, processes[0], "Prefect's server", _say, startup_seconds())
            if problem:
                raise InputError(f"{problem}; its lines above say why.")
            prepare_pool(url, environment)
            deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
            subprocess.run(deploy, env=environment, cwd=PROJECT, check=True)
            end_dead_runs(url, _say, functools.partial(is_under_way, root))
            processes.append(_start(["worker", "start", "--pool", POOL, "--type", "process"], environment, held))
            yield processes
        finally:
            _stop_all(processes)


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


def _start(arguments: list[str], environment: dict[str, str], held: int) -> Keeper:
    return start([sys.executable, "-m", "prefect", *arguments], environment, PROJECT, (held,))


def _stop_all(processes: list[Keeper]) -> None:
    """The worker and its runs, which still report to the server, then the server; a second Ctrl-C does not leave anything."""
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *STOP)} if _in_main() else {}
    for process in reversed(processes):
        stop(process)
    for number, handler in kept.items():
        signal.signal(number, handler)


def _in_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _starter_is_gone() -> Callable[[], bool]:
    """Asks whether the process that started this one has ended; always no where this one is meant to outlive it."""
    starter = os.getppid()
    if os.getsid(0) == os.getpid() or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return lambda: False
    return lambda: os.getppid() != starter
