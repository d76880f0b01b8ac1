"""Commands that train in their own process, ended from outside in training: nothing is left, and the root is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.keeper import below
from schemas import lock
from tests.flows.conftest import LONG_SECONDS, clean_environment, overnight_here
from tests.flows.served import is_there, wait_until
from tests.slow import slow

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
LONG = [f"--set={change}" for change in ("training.tokens_per_step=64", "body.dim=16", "training.threads=1")]
EPOCHS = "--set=training.epochs=1000"
COMMANDS = {
    "train --devices 2": ["train", "--devices", "2", EPOCHS, *LONG],
    "compare --devices 2": ["compare", "--presets", "default", "--folds", "1", "--devices", "2", EPOCHS, *LONG],
    "train": ["train", EPOCHS, *LONG],
    "tune": ["tune", "--budget", "50m", "--presets", "none", *LONG],
}


@pytest.mark.fault(
    "`overnight train`, `compare` or `tune` gets Ctrl-C, SIGTERM, SIGHUP or SIGKILL in training, with several devices, too",
    outcome="no process is left, and no lock; run again, it goes on from its last checkpoint",
)
@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("train --devices 2", signal.SIGTERM),
        ("train --devices 2", signal.SIGKILL),
        pytest.param("train --devices 2", signal.SIGINT, marks=slow),
        pytest.param("compare --devices 2", signal.SIGHUP, marks=slow),
        pytest.param("compare --devices 2", signal.SIGKILL, marks=slow),
        pytest.param("train", signal.SIGTERM, marks=slow),
        pytest.param("tune", signal.SIGTERM, marks=slow),
        pytest.param("tune", signal.SIGINT, marks=slow),
    ],
)
def test_a_command_that_is_ended_leaves_no_process_and_a_whole_root(
    command: str, number: int, shop: Path, tmp_path: Path
) -> None:
    root, temporary = tmp_path / "root", tmp_path / "temporary"
    temporary.mkdir()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *COMMANDS[command], "--source", str(shop), "--root", str(root)],
            stdout=log,
            stderr=log,
            env=clean_environment() | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
        )
    text = tmp_path / "log"

    def trains() -> bool:
        assert process.poll() is None, text.read_text()
        return any(line in text.read_text() for line in ("Training sasrec", "Trial 0"))

    wait_until(trains)
    started = below(process.pid)
    assert bool(started) == ("devices" in command)
    os.kill(process.pid, number)
    assert process.wait(LONG_SECONDS) == (130 if number == signal.SIGINT else -number), text.read_text()
    wait_until(lambda: not any(map(is_there, started)))
    assert lock.owner_of(root) is None
    if number != signal.SIGKILL:
        assert not [left for left in temporary.iterdir() if left.name.startswith("overnight-")]
        assert "Traceback" not in text.read_text()
    assert overnight_here("verify", "--root", root).returncode == 0
