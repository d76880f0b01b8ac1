"""The temporary Prefect server: what is said where there is none. Runs on it: test_runs.py; its end: test_retrain.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flows.environment import PATIENT, prepare_environment
from flows.server import STARTUP_TIMEOUT, startup_seconds
from schemas.errors import InputError
from tests.flows.conftest import clean_environment, overnight_here

SLOW = """
import sys, time
if any(argument.endswith("flows/server.py") for argument in sys.orig_argv):
    time.sleep({seconds})
"""


def slowed(folder: Path, seconds: float) -> dict[str, str]:
    """An environment in which Python sleeps before it becomes the temporary server."""
    (folder / "slow").mkdir()
    (folder / "slow" / "sitecustomize.py").write_text(SLOW.format(seconds=seconds))
    return clean_environment() | {"PYTHONPATH": os.pathsep.join([str(folder / "slow"), *sys.path])}


def test_a_server_that_is_too_slow_ends_the_command_with_one_line(shop: Path, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": slowed(tmp_path, 600)["PYTHONPATH"], STARTUP_TIMEOUT: "2"}
    done = overnight_here("retrain", "--source", shop, "--root", tmp_path / "root", **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("overnight: Prefect's temporary server did not answer within 2 seconds"), done.stderr
    assert "overnight serve" in line and "PREFECT_API_URL" in line and f"{STARTUP_TIMEOUT}=4" in line
    assert "Traceback" not in done.stderr


@pytest.mark.fault("Prefect's temporary server dies as it starts", outcome="one line")
def test_a_server_that_dies_is_not_waited_for(shop: Path, tmp_path: Path) -> None:
    environment = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////nowhere/at.db"}
    done = overnight_here("retrain", "--source", shop, "--root", tmp_path / "root", **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "ended with code" in line and "overnight serve" in line
    assert "Traceback" not in done.stderr


def test_a_wrong_timeout_is_said_in_one_line(shop: Path, tmp_path: Path) -> None:
    """What is said of servers that are named, or not allowed: test_retrain.py."""
    done = overnight_here("retrain", "--source", shop, "--root", tmp_path, **{STARTUP_TIMEOUT: "0"})
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert f"{STARTUP_TIMEOUT} is '0'" in line and "above 0" in line and "Traceback" not in done.stderr, done.stderr


def test_what_a_person_set_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*PATIENT, "PREFECT_HOME"):
        monkeypatch.setenv(name, "")  # what is set below is taken back
        monkeypatch.delenv(name)
    assert startup_seconds() == 600, "with no environment prepared"
    monkeypatch.setenv(STARTUP_TIMEOUT, "7")
    prepare_environment(tmp_path)
    assert startup_seconds() == 7
    assert float(os.environ["PREFECT_API_REQUEST_TIMEOUT"]) >= 300
    for wrong in ("soon", "nan", "-1", "inf"):
        monkeypatch.setenv(STARTUP_TIMEOUT, wrong)
        with pytest.raises(InputError, match=STARTUP_TIMEOUT):
            startup_seconds()
