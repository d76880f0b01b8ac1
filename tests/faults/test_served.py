"""Runs of a real server that asks for a password: cancelled, killed, out of time, cut off, without their worker.

One server for all up to the power cut, and one after it: to start it takes as much CPU time as two nights.
"""

from __future__ import annotations

import os
import signal
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
from tests.flows.served import (
    ASK_EVERY,
    LONG,
    SHORT,
    Served,
    is_there,
    needs_proc,
    of_root,
    served,
    stopped_in_training,
    wait_until,
)
from tests.schemas.own import part
from tests.slow import SLOW, slow

pytestmark = needs_proc
# In a traceback. Prefect's server has some of its own on a busy machine: its services find their database locked.
OUR_CODE = f'File "{Path(__file__).parents[2] / "flows"}/'
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
    wait_until(lambda: night.is_over(run), ASK_EVERY)
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
    wait_until(lambda: night.state(run) == "Cancelled", ASK_EVERY)
    wait_until(lambda: not processes_of(run))


@pytest.mark.fault("a run is cancelled from the UI while events are prepared", outcome="no process is left")
@pytest.mark.fault("a run is cancelled from the UI in training", outcome="no process is left")
@pytest.mark.fault(
    "power cut: server, worker and run end at once",
    outcome="at the next start the run is Crashed, and the next night goes on",
)
@pytest.mark.fault(
    "the worker is killed in training", outcome="`overnight serve` ends with one line and leaves no process"
)
def test_however_runs_end_nothing_is_left_and_the_next_one_runs(shop: Path, tmp_path: Path) -> None:
    root, begun, auth = tmp_path / "root", tmp_path / "begun", "night:s3cret"
    part(tmp_path, "plugins/steps/never_ends.py", NEVER_ENDS)
    demo = yaml.safe_load((SHIPPED / "demo.yaml").read_text())
    demo["steps"] = [*demo.get("steps", []), {"never_ends": {"says": str(begun)}}]
    (tmp_path / "waiting.yaml").write_text(yaml.safe_dump(demo | {"plugins": "plugins"}))
    with served(root, shop, auth=auth) as night:
        refused = overnight("retrain", "--root", root, "--source", shop)
        assert (
            refused.returncode == 2
            and "PREFECT_API_AUTH_STRING" in refused.stderr
            and "Traceback" not in refused.stderr
        )
        with pytest.raises(urllib.error.HTTPError, match="401"):
            replace(night, headers={}).ask("GET", "/deployments/name/retrain/nightly")
        preparing = night.begin({"data": {"dataset": str(tmp_path / "waiting.yaml")}})
        wait_until(lambda: begun.exists() or night.is_over(preparing), ASK_EVERY)
        cancel(night, preparing)
        run, family = training(night)  # the lock of the root is free, else it would wait
        cancel(night, run)
        assert not any(map(is_there, family))
        assert OUR_CODE not in night.log.read_text()
        if SLOW:  # tests/flows/test_child.py and test_runs.py do this without a worker
            killed_then_out_of_time(night)
        dead = night.train()
        power_cut(root)
        assert "s3cret" not in night.log.read_text()
    elsewhere = tmp_path / "elsewhere"  # as from a backup: the runs' database lies in the root
    root.rename(elsewhere)
    with served(elsewhere, shop, auth=auth) as night:
        completes_after(night, dead)
        night.train()
        before = night.log.read_text()
        (worker,) = (pid for pid in below(night.process.pid) if is_worker(pid))
        left = of_root(elsewhere)
        os.kill(worker, signal.SIGKILL)
        assert night.process.wait(LONG_SECONDS) == 2
        assert not any(map(is_there, left)) and not of_root(elsewhere)
    said = night.log.read_text()
    assert "s3cret" not in said
    assert "The worker ended by itself" in said.splitlines()[-1] and OUR_CODE not in said.removeprefix(before)


def power_cut(root: Path) -> None:
    """Server, worker and runs end at once."""
    for pid in (pids := of_root(root)):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_there, pids)))


def completes_after(night: Served, dead: str) -> None:
    """The run that was cut off is Crashed, and the next one completes; what its process says is in its log."""
    assert night.state(dead) == "Crashed"
    assert night.ask("GET", f"/flow_runs/{dead}")["state"]["message"].startswith("Its process is gone")
    run = night.begin(SHORT)
    wait_until(lambda: night.is_over(run), ASK_EVERY)
    assert night.state(run) == "Completed"
    lines = night.ask("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
    assert any("Training sasrec" in line["message"] for line in lines)


@slow  # tests/flows/test_keeper.py kills what is kept like this without a server
@pytest.mark.parametrize("how", ["its own SIGKILL", "SIGKILL of what started it"])
@pytest.mark.fault(
    "`overnight serve`, or what started it, is killed in training (by hand: OVERNIGHT_SLOW=1)",
    outcome="no process is left; the next night goes on",
)
def test_killed_in_the_middle_of_a_night_nothing_is_left(how: str, shop: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with served(root, shop, shell=how.startswith("SIGKILL")) as night:
        stopped_in_training(night, signal.SIGKILL)


def is_worker(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return words[1:4] == [b"-m", b"prefect", b"worker"]
