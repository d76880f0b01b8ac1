"""Prefect's surroundings: state below the artifact root, nothing sent anywhere. Call before Prefect or Polars is imported."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flows.server import STARTUP_SECONDS, STARTUP_TIMEOUT
from preprocessing.execution.memory import keep_memory
from schemas.errors import InputError
from schemas.places import VARIABLE, of_environment

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait must not burn the core another process needs
}
# Prefect's defaults are seconds, which a server on a busy machine does not keep. Whoever is waiting may press Ctrl-C.
PATIENT = {
    STARTUP_TIMEOUT: str(STARTUP_SECONDS),
    "PREFECT_API_REQUEST_TIMEOUT": "600",
    "PREFECT_CLIENT_MAX_RETRIES": "8",  # the wait doubles each time: 8 minutes for a server that answers 503
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",  # what a server answers whose database is away for a minute
    "PREFECT_SERVER_DATABASE_TIMEOUT": "300",  # in SQLite also how long a locked database is waited for
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "120",
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_TIMEOUT": "300",
    "PREFECT_SERVER_API_WEBSOCKET_PING_TIMEOUT": "300",
}
AUTH_OF_SERVER, AUTH = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"


def prepare_environment(root: Path) -> None:
    """Set what is not set already. Without PREFECT_API_URL, runs are kept in SQLite in `root/prefect`.

    Raises:
        InputError: when the root, or the folder of $PREFECT_HOME, is no folder and cannot be made.
    """
    make_folder(root.expanduser().resolve(), "--root (or $OVERNIGHT_ROOT)")
    for name, value in (QUIET | PATIENT).items():
        os.environ.setdefault(name, value)
    if string := os.environ.get(AUTH_OF_SERVER):  # who starts a server that asks for it is let in
        os.environ.setdefault(AUTH, string)
    keep_memory()
    if folders := of_environment():  # as they are seen from here, for processes that begin elsewhere
        os.environ[VARIABLE] = os.pathsep.join(map(str, folders))
    home = os.environ.setdefault("PREFECT_HOME", str(root.expanduser().resolve() / "prefect"))
    make_folder(Path(home), "$PREFECT_HOME")  # the server does not make it


def make_folder(folder: Path, option: str) -> None:
    """Make a folder that is not there yet.

    Raises:
        InputError: when it cannot be made, with `option`, which names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise InputError(
            f"{option} {folder}: not a folder, and none can be made there ({reason}). Give a folder."
        ) from None


def require_folder(folder: Path, option: str) -> None:
    """
    Raises:
        InputError: where a file lies in the way of a folder that may have to be made; `option` names it.
    """
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    if there.exists() and not there.is_dir():
        raise InputError(f"{option} {folder}: {there} is a file. Give a folder.")


def only_runs_speak() -> None:
    """In a terminal: keep the lines of flows and tasks, drop those about the temporary server."""
    logging.getLogger("prefect").setLevel(logging.WARNING)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).setLevel(logging.INFO)
