"""A tiny shop, and the terminal command run as a person would run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocessing.simulate import Shop, simulate

LONG_SECONDS = 3600  # what no run takes, not even on a busy machine: it ends a test that would hang
QUICK = [  # little training; a first model need not beat popularity to be promoted
    f"--set={change}"
    for change in (
        "training.epochs=6",
        "training.tokens_per_step=32",
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


def overnight(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `overnight` to its end."""
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LONG_SECONDS, env=environment or clean_environment()
    )


def summary_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What `--json` printed as the last line."""
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_and_kill(until: Callable[[str], bool], *arguments: str | Path) -> list[str]:
    """Run `overnight` and SIGKILL it, with all that it started, at the first line for which `until` holds."""
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=clean_environment() | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if until(line):
                return lines
        raise AssertionError("".join(["the line to kill at never came:\n", *lines]))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def clean_environment() -> dict[str, str]:
    """The environment without what would point a run elsewhere."""
    elsewhere = ("PREFECT_", "OVERNIGHT_")
    return {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)}
