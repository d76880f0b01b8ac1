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

from flows.here import deployments_folder
from flows.keeper import Keeper, start, stop
from flows.night_lock import is_under_way
from flows.pages import VARIABLE, pages_of
from flows.pool import POOL, end_dead_runs, prepare_pool
from flows.server import HOST, startup_seconds, wait_for_server
from flows.serving import serving_at
from flows.tracking.ui import showing
from schemas.errors import InputError

PARTS = ("server", "worker", "watch for files")  # in the order in which they are started
STOP = (signal.SIGTERM, signal.SIGHUP)  # as Ctrl-C


def serve(root: Path, source: str | None, port: int, watch: float | None = None) -> None:
    """Run until Ctrl-C, SIGTERM, or the end of the process that started it; then stop runs, worker, server and MLflow's UI.

    Where SIGHUP is ignored (nohup) or the process leads a session of its own (setsid, a service), it outlives its starter.

    Raises:
        InputError: when server, worker or the watch ended by itself, and as `running` does.
    """
    for number in STOP:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    orphaned = _starter_is_gone()
    with (
        contextlib.suppress(KeyboardInterrupt),
        showing(root) as recorded,
        running(root, source, port, watch) as processes,
    ):
        _say(f"\nPrefect UI: http://{HOST}:{port}   (Ctrl-C stops runs, worker and server)")
        _say("Start a run now: Deployments > retrain/nightly > Run, or leave it to the nightly schedule.")
        while all(process.poll() is None for process in processes):
            recorded.tell(_say)
            time.sleep(0.5)
            if orphaned():
                raise KeyboardInterrupt
        which = next(name for name, process in zip(PARTS, processes, strict=False) if process.poll() is not None)
        raise InputError(
            f"The {which} ended by itself; its lines above say why. All of it was stopped: start `overnight serve` again. A "
            "run that was under way is Crashed then, and the next night goes on where it was."
        )


@contextlib.contextmanager
def running(root: Path, source: str | None, port: int, watch: float | None = None) -> Iterator[list[Keeper]]:
    """A server and a worker that serve the deployments of prefect.yaml while the block lasts. With `watch`, new files that have
    been as they are for so many minutes start a night.

    Runs that an earlier server took down with it are marked Crashed before the worker begins. When the block ends nothing that
    was started in it is left, a run's own processes included.

    Raises:
        InputError: when another server is up for the same $PREFECT_HOME, the port is taken, no prefect.yaml is there, or the
            server does not come up.
    """
    folder = deployments_folder()
    environment = server_environment(root, source, port)
    url = environment["PREFECT_API_URL"]
    processes: list[Keeper] = []
    with serving_at(url, _say) as held, pages_of(root) as pages:
        environment[VARIABLE] = pages
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                raise InputError(f"Port {port} is taken. Give another: overnight serve --port {port + 1}.")
        try:
            processes.append(
                _start(["server", "start", "--host", HOST, "--port", str(port)], environment, folder, held)
            )
            problem = wait_for_server(url, processes[0], "Prefect's server", _say, startup_seconds())
            if problem:
                raise InputError(f"{problem}; its lines above say why.")
            prepare_pool(url, environment)
            deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
            subprocess.run(deploy, env=environment, cwd=folder, check=True)
            end_dead_runs(url, _say, functools.partial(is_under_way, root))
            processes.append(
                _start(["worker", "start", "--pool", POOL, "--type", "process"], environment, folder, held)
            )
            if watch is not None:
                command = [sys.executable, "-m", "flows.triggers", url, str(root.resolve()), str(watch)]
                processes.append(start(command, environment, folder, (held,)))
            _say(f"Reports and days, linked from runs: {pages}")
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


def _start(arguments: list[str], environment: dict[str, str], folder: Path, held: int) -> Keeper:
    return start([sys.executable, "-m", "prefect", *arguments], environment, folder, (held,))


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
