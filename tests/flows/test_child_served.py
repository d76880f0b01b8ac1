"""What a night's process does to its run on a real server with a real worker: cancelled, out of time, killed, then whole."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from flows.keeper import below
from schemas.artifacts import MANIFEST
from tests.flows.test_power_cut import LONG, SHORT, Served, is_there, served, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")


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


def test_a_night_cancelled_out_of_time_or_killed_leaves_no_process_and_the_next_one_runs(
    shop: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    with served(root, shop) as night:
        run = night.train()
        wait_until(lambda: of_stages(night))
        family = of_stages(night)
        cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
        night.ask("POST", f"/flow_runs/{run}/set_state", cancelling)  # what the button of the UI sends
        assert over(night, run)["type"] == "CANCELLED"
        assert not any(map(is_there, family))

        run = night.train()
        wait_until(lambda: of_stages(night))
        os.kill(of_stages(night)[0], signal.SIGKILL)
        state = over(night, run)
        assert (state["type"], state["name"]) == ("FAILED", "ProcessEnded")
        assert "stage train has no result" in state["message"] and "where memory runs out" in state["message"]

        run = night.begin(LONG | {"changes": ["limits.train_hours=0.001"]})
        state = over(night, run)
        assert state["type"] == "FAILED" and "(limits.train_hours)" in state["message"]
        assert not list(root.glob(f"models/*/{MANIFEST}"))

        run = night.begin(SHORT)
        assert over(night, run)["type"] == "COMPLETED"
        lines = night.ask("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
        assert any("Training sasrec" in line["message"] for line in lines), "what the process says is in the run's log"
    assert len(list(root.glob(f"models/*/{MANIFEST}"))) == 1
