"""Runs of a real server that asks for a password, and its worker: cancelled, killed, out of time, without their worker.

One server for all: to start it takes as much CPU time as two nights.
"""

from __future__ import annotations

import os
import signal
import time
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.keeper import below
from schemas.artifacts import MANIFEST
from schemas.dataset import SHIPPED
from tests.flows.conftest import LONG_SECONDS, overnight
from tests.flows.test_power_cut import LONG, Served, is_there, of_root, served, wait_until
from tests.schemas.own import part

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
NEVER_ENDS = '''"""Wait."""

import time
from pathlib import Path

import polars as pl

from preprocessing.steps import Step


class NeverEnds(Step):
    """Say that it has begun, then wait inside the engine."""

    says: str

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        def wait(frame: pl.DataFrame) -> pl.DataFrame:
            if len(frame):
                Path(self.says).touch()
                time.sleep(3600)
            return frame

        return events.map_batches(wait)
'''


def processes_of(run: str) -> list[int]:
    """Processes that were started for a run, and what these started."""
    wanted, pids = f"PREFECT__FLOW_RUN_ID={run}".encode(), []
    for pid in map(int, (path.name for path in Path("/proc").glob("[0-9]*"))):
        try:
            found = wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if found and is_there(pid):
            pids.append(pid)
    return pids


def of_stages(night: Served) -> list[int]:
    """The processes that do stages, below all that serves."""
    found = []
    for pid in below(night.process.pid):
        try:
            words = (Path("/proc") / str(pid) / "cmdline").read_bytes()
        except OSError:
            continue
        if b"flows.child_process" in words and b"keeper.py" not in words:
            found.append(pid)
    return found


def over(night: Served, run: str) -> dict[str, Any]:
    """The state in which a run ended, once its processes are gone."""
    wait_until(lambda: night.is_over(run))
    wait_until(lambda: not of_stages(night))
    state: dict[str, Any] = night.ask("GET", f"/flow_runs/{run}")["state"]
    return state


def training(night: Served) -> tuple[str, list[int]]:
    """A night that trains, and the processes of its stages."""
    run = night.train()
    wait_until(lambda: of_stages(night))
    return run, of_stages(night)


def killed_then_out_of_time(night: Served) -> None:
    """The process that trains is killed; a stage takes longer than it may."""
    run, family = training(night)
    os.kill(family[0], signal.SIGKILL)
    state = over(night, run)
    assert (state["type"], state["name"]) == ("FAILED", "ProcessEnded")
    assert "stage train has no result" in state["message"] and "where memory runs out" in state["message"]

    state = over(night, night.begin(LONG | {"changes": ["limits.train_hours=0.001"]}))
    assert state["type"] == "FAILED" and "(limits.train_hours)" in state["message"]
    assert not list(night.root.glob(f"models/*/{MANIFEST}"))


def cancel(night: Served, run: str) -> None:
    """As the button in the UI does; nothing of the run is left then."""
    assert processes_of(run)
    night.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    while night.state(run) != "Cancelled":
        time.sleep(1)  # to ask often would cost more than what is waited for
    wait_until(lambda: not processes_of(run))


@pytest.mark.fault("a run is cancelled from the UI while events are prepared", outcome="no process is left")
@pytest.mark.fault("a run is cancelled from the UI in training", outcome="no process is left")
@pytest.mark.fault(
    "the worker is killed in training", outcome="`overnight serve` ends with one line and leaves no process"
)
def test_however_runs_end_nothing_is_left_and_the_next_one_runs(shop: Path, tmp_path: Path) -> None:
    root, begun = tmp_path / "root", tmp_path / "begun"
    part(tmp_path, "plugins/steps/never_ends.py", NEVER_ENDS)
    demo = yaml.safe_load((SHIPPED / "demo.yaml").read_text())
    demo["steps"] = [*demo.get("steps", []), {"never_ends": {"says": str(begun)}}]
    (tmp_path / "waiting.yaml").write_text(yaml.safe_dump(demo | {"plugins": "plugins"}))
    with served(root, shop, auth="night:s3cret") as night:
        refused = overnight("retrain", "--root", root, "--source", shop)
        assert (
            refused.returncode == 2
            and "PREFECT_API_AUTH_STRING" in refused.stderr
            and "Traceback" not in refused.stderr
        )
        with pytest.raises(urllib.error.HTTPError, match="401"):
            replace(night, headers={}).ask("GET", "/deployments/name/retrain/nightly")
        preparing = night.begin({"data": {"dataset": str(tmp_path / "waiting.yaml")}})
        wait_until(lambda: begun.exists() or night.is_over(preparing))
        cancel(night, preparing)
        run, family = training(night)  # the lock of the root is free, else it would wait
        cancel(night, run)
        assert not any(map(is_there, family))
        assert "Traceback" not in log_of(tmp_path)
        killed_then_out_of_time(night)
        night.train()
        before = log_of(tmp_path)  # with what ended the stages: the process of the run before is gone
        (worker,) = (pid for pid in below(night.process.pid) if is_worker(pid))
        left = of_root(root)
        os.kill(worker, signal.SIGKILL)
        assert night.process.wait(LONG_SECONDS) == 2
        assert not any(map(is_there, left)) and not of_root(root)
    said = log_of(tmp_path)
    assert "s3cret" not in said
    assert "The worker ended by itself" in said.splitlines()[-1] and "Traceback" not in said.removeprefix(before)


def log_of(folder: Path) -> str:
    (log,) = folder.glob("served-*.txt")
    return log.read_text()


def is_worker(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return words[1:4] == [b"-m", b"prefect", b"worker"]
