"""The Prefect server that a command in a terminal runs against: the one PREFECT_API_URL names, that of
`overnight serve`, else a temporary one.

Prefect would start a temporary server by itself, but gives it 20 seconds, ends with a traceback when it is slower, waits on
when it has died, and leaves it behind when the run is killed. This one has ten minutes, and ends with the process that
started it.

Run as a script, this file is that server. It imports nothing of Overnight then.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

HOST = "127.0.0.1"
STARTUP_TIMEOUT = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"  # Prefect's own name for it
STARTUP_SECONDS = 600  # of a server, where nothing else is set: two busy cores need more than one minute
QUIET_SECONDS = 10  # nothing is said of a wait that is no longer
STOP_SECONDS = 30  # for a server to end its requests; then it is killed
PROBE_SECONDS = 10  # for one answer to "are you there"
NO_ANSWER = (OSError, http.client.HTTPException)


@contextlib.contextmanager
def prefect_server(say: Callable[[str], object]) -> Iterator[str]:
    """Prefect's API for flows that run inside the block, as a URL. `say` gets a line if a person has to wait.

    It is that of PREFECT_API_URL, else that of `overnight serve` for the same $PREFECT_HOME, else that of a temporary server.

    A temporary server is left running when the block ends, because Prefect sends its last lines when the process ends; it stops
    after that.

    Raises:
        InputError: when the server of PREFECT_API_URL does not answer, one does not let this user in, or a temporary one may
            not start or does not.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, PREFECT_UI_URL, temporary_settings

    from flows.serving import served_at
    from schemas.errors import InputError

    if url := PREFECT_API_URL.value():
        _check_answers(url)
        _check_lets_in(url)
        yield url
        return
    if not PREFECT_SERVER_EPHEMERAL_ENABLED:
        raise InputError(
            "PREFECT_API_URL is not set, and PREFECT_SERVER_ALLOW_EPHEMERAL_MODE allows no temporary server. Start one that "
            "stays (overnight serve) and set PREFECT_API_URL=http://127.0.0.1:4200/api."
        )
    served = served_at()
    url = served or _start_temporary(say)
    # A temporary server has no UI to give links to.
    with temporary_settings({PREFECT_API_URL: url} if served else {PREFECT_API_URL: url, PREFECT_UI_URL: ""}):
        if served:
            _check_lets_in(url)
        yield url


def wait_for_server(
    url: str, process: subprocess.Popen[bytes], what: str, say: Callable[[str], object], seconds: float
) -> str | None:
    """Wait until the server `process` answers at the API `url`. None, or in words why it does not."""
    start, quiet = time.monotonic(), True
    while process.poll() is None and (waited := time.monotonic() - start) < seconds:
        if quiet and waited > QUIET_SECONDS:
            say(f"Waiting for {what} to start, for up to {_in_words(seconds)}: on a busy machine it takes long.")
            quiet = False
        # Short while nothing is said: a server that listens and does not answer yet would hold up the line.
        patience = min(1 if quiet else PROBE_SECONDS, seconds - waited)
        with contextlib.suppress(*NO_ANSWER), urllib.request.urlopen(f"{url}/health", timeout=patience):
            return None
        time.sleep(0.1)
    if process.poll() is not None:
        return f"{what} ended with code {process.poll()} before it answered"
    return f"{what} did not answer within {_in_words(seconds)}"


def startup_seconds() -> float:
    """How long a server may take to start.

    Raises:
        InputError: when the environment holds no number of seconds.
    """
    from schemas.errors import InputError

    text = os.environ.get(STARTUP_TIMEOUT) or str(STARTUP_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise InputError(f"{STARTUP_TIMEOUT} is {text!r}; it is a number of seconds above 0.")
    return seconds


def _check_answers(url: str) -> None:
    """Any answer will do: what a server refuses, it explains itself."""
    import httpx
    from prefect.client.orchestration import get_client

    from schemas.errors import InputError

    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if isinstance(error, httpx.TransportError):
        raise InputError(
            f"No Prefect server answers at PREFECT_API_URL={url} ({error}). Start it (overnight serve), or unset "
            "PREFECT_API_URL for a temporary server."
        )


def _check_lets_in(url: str) -> None:
    """
    Raises:
        InputError: when the server asks for a name and a password that are not set, or for others.
    """
    import httpx
    from prefect.client.orchestration import get_client

    from schemas.errors import InputError

    try:
        with get_client(sync_client=True) as client:
            client.request("GET", "/admin/version")
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (401, 403):
            raise InputError(
                f"The Prefect server at {url} lets nobody in without name and password: set PREFECT_API_AUTH_STRING to what "
                "PREFECT_SERVER_API_AUTH_STRING is there (NAME:PASSWORD)."
            ) from None


def _start_temporary(say: Callable[[str], object]) -> str:
    """Start a server that lives as long as this process; its URL."""
    from schemas.errors import InputError

    seconds = startup_seconds()
    with socket.create_server((HOST, 0)) as listening, tempfile.TemporaryFile() as log:
        url = f"http://{HOST}:{listening.getsockname()[1]}/api"
        process = _spawn(listening, log)
        atexit.register(_stop, process)
        listening.close()  # the server has its own handle: if it dies, nobody must seem to listen
        problem = wait_for_server(url, process, "Prefect's temporary server", say, seconds)
        if problem:
            _stop(process)
            raise InputError(
                f"{problem}{_last_line(log)}. Start a server that stays (overnight serve) and set "
                f"PREFECT_API_URL=http://127.0.0.1:4200/api, or allow more seconds: {STARTUP_TIMEOUT}={2 * seconds:.0f}."
            )
    return url


def _spawn(listening: socket.socket, log: IO[bytes]) -> subprocess.Popen[bytes]:
    # Given as a file with -P, so that no module in the working folder comes before those it imports.
    command = [sys.executable, "-P", str(Path(__file__).resolve()), str(listening.fileno())]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=os.environ | {"PREFECT_UI_ENABLED": "0"},
        pass_fds=[listening.fileno()],
        start_new_session=True,  # Ctrl-C is for the run, which still has to report its end to the server
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f" ({lines[-1].strip()})" if lines else ""


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:g} seconds"


def _serve(descriptor: int) -> None:
    """Be the temporary server on a listening socket, until it is stopped or the parent is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.disable()  # what is imported stays: to look through it for garbage, over and over, is a quarter of the start
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    gc.freeze()
    gc.enable()
    config = uvicorn.Config(
        app,
        log_level="error",
        lifespan="on",
        ws_ping_interval=None,  # the only client is the parent, which may be too busy to answer in time
        timeout_graceful_shutdown=STOP_SECONDS // 2,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _end_with_parent() -> None:
    """The pipe to standard input closes when the parent ends, however it ends."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
