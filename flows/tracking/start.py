"""Starts the client, and ends it when it takes too long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flows.tracking.flat import HIDDEN, without_secrets
from flows.tracking.target import QUIET, Target

CLIENT = Path(__file__).with_name("client.py")
PATIENCE = 60.0  # seconds for a server to take everything
AT_HOME = 600.0  # for SQLite below the root: nobody is waited for there, but the machine may be busy
ONE_ANSWER = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def run_client(target: Target, job: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """What the client did, line by line, and why it did not do all of it (or "")."""
    environment = {**ONE_ANSWER, **os.environ, **QUIET}
    target.folder.mkdir(parents=True, exist_ok=True)
    seconds = AT_HOME if target.database else PATIENCE
    try:
        ended = subprocess.run(
            [sys.executable, "-P", str(CLIENT)],
            input=json.dumps(job).encode(),
            capture_output=True,
            env=environment,
            cwd=target.folder,
            timeout=seconds,
        )
        out, failure = ended.stdout, ""
        if ended.returncode:
            failure = (ended.stderr.decode(errors="replace").strip().splitlines() or [f"code {ended.returncode}"])[-1]
    except subprocess.TimeoutExpired as error:
        out, failure = error.stdout or b"", f"no end after {seconds:.0f} seconds"
    lines = [json.loads(line) for line in out.decode(errors="replace").splitlines() if line.startswith("{")]
    failure = next((line["failed"] for line in lines if "failed" in line), failure)
    return lines, in_short(failure, target)


def in_short(text: str, target: Target) -> str:
    """One line, with no secret of the target in it."""
    line = without_secrets(" ".join(text.split()))
    secrets = [os.environ.get(name, "") for name in SECRETS]
    for uri in (target.uri, target.registry):
        password = urlsplit(uri).password or ""
        secrets += [password, unquote(password)]
    for secret in filter(None, secrets):
        line = line.replace(secret, HIDDEN)
    return line[:300]
