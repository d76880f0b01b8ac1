"""The deployments, on a real server with a real worker: ad-hoc runs complete, the nightly one is scheduled."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from flows.environment import PATIENT, QUIET
from flows.serve import running, server_environment
from schemas.errors import InputError
from tests.flows.conftest import LONG_SECONDS, answer_of, begun, clean_environment, free_port, listening
from tests.slow import SLOW

RUN = """
import json, sys
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
def run(name, parameters):
    done = run_deployment(name, parameters=parameters, timeout=3000, poll_interval=1)
    with get_client(sync_client=True) as client:
        done = client.read_flow_run(done.id)
    return {"state": done.state.name, "message": done.state.message, "name": done.name}
night, root = json.loads(sys.argv[1]), json.loads(sys.argv[1])["data"]["root"]
runs = {"retrain": run("retrain/nightly", night)}
runs["hold"] = run("promote/by-hand", {"hold": "hold", "because": "a sale", "root": root})
if sys.argv[2:]:
    runs["prune"] = run("prune/by-hand", {"root": root})
period = {"first": "2026-03-05", "last": "2026-03-06"}
runs["backfill"] = run("backfill/by-hand", {"period": period, "data": night["data"], "what": "sessions"})
with get_client(sync_client=True) as client:
    scheduled = [r for r in client.read_flow_runs() if r.auto_scheduled and "auto-scheduled" in r.tags]
    below = sorted(r.name for r in client.read_flow_runs() if r.parent_task_run_id)
    keys = [a.key for a in client.read_artifacts()]
    report = [a.data for a in client.read_artifacts() if a.key == "run-report"]
    limits = {q.name: q.concurrency_limit for q in client.read_work_queues(work_pool_name="overnight")}
    deployments = sorted(d.name for d in client.read_deployments())
print(json.dumps({"runs": runs, "scheduled": len(scheduled), "keys": keys, "limits": limits, "below": below,
                  "report": report, "deployments": deployments}))
"""
RETRAIN = [sys.executable, "-m", "flows.cli", "retrain", "--preset", "esasrec"]
RETRAIN += [
    f"--set={change}"
    for change in ("body.num_layers=1", "training.epochs=1", "training.threads=1", "promotion.min_gain=9")
]


def test_ad_hoc_runs_of_the_deployments_complete(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    for name, value in (QUIET | PATIENT).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    begun(tmp_path)
    port = free_port()
    parameters = {
        "data": {"dataset": "demo", "source": str(shop), "root": str(tmp_path / "root")},
        "model": {"preset": "esasrec", "body": {"num_layers": 1}},
        "training": {"epochs": 1, "threads": 1},
        "promotion": {"min_gain": 9.0},  # a first model is promoted on no machine
    }
    with contextlib.ExitStack() as stack:
        address, messages = stack.enter_context(listening())
        monkeypatch.setenv("OVERNIGHT_WEBHOOK", address)
        stack.enter_context(running(tmp_path / "root", None, port))
        environment = server_environment(tmp_path / "root", None, port)
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(parameters), *(["prune"] if SLOW else [])],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONG_SECONDS,
        )
        # In a terminal, with nothing said of the server: a run there, too.
        again = subprocess.run(
            [*RETRAIN, "--source", shop, "--root", tmp_path / "root"], capture_output=True, text=True
        )
        linked = re.findall(r"\]\((http://127.0.0.1:\d+/[^)]*)\)", done.stdout)
        pages = [urllib.request.urlopen(link, timeout=LONG_SECONDS).read() for link in linked]
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/flow_runs/filter", b"{}", {"Content-Type": "application/json"}
        )
        whole = [run for run in answer_of(asked) if run["state_name"] in ("Completed", "Cached")]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to do" in again.stdout and "This run in the Prefect UI" in again.stdout, again.stdout + again.stderr
    assert sum(run["name"] == "demo 2026-03-05" for run in whole) >= 2, whole
    assert any(b"demo" in page for page in pages), "what the run links to opens"
    found = json.loads(done.stdout.splitlines()[-1])
    night = found["runs"]["retrain"]
    assert night["state"] == "Completed" and "ndcg@20" in night["message"], found
    assert night["name"] == "demo 2026-03-05"
    assert found["report"][0].splitlines()[0] == "# Not promoted, nothing is in service: demo 2026-03-05"
    if SLOW:
        assert found["runs"]["prune"]["state"] == "Completed" and found["runs"]["prune"]["name"] == "prune, dry run"
    assert found["runs"]["hold"]["name"] == "demo hold"
    assert found["runs"]["hold"]["state"] == "Mistake" and "Nothing is in service" in found["runs"]["hold"]["message"]
    backfill = found["runs"]["backfill"]
    assert (backfill["state"], backfill["name"]) == ("Failed", "demo 2026-03-05 to 2026-03-06")
    assert backfill["message"] == "1 of 2 days failed: 2026-03-06"
    assert found["below"] == ["demo 2026-03-05", "demo 2026-03-06"]
    assert len(messages) == 2, "\n".join(messages)
    of_night, of_backfill = messages
    assert of_night.startswith("Overnight, demo 2026-03-05: not promoted. ndcg@20 ") and "/runs/flow-run/" in of_night
    assert of_backfill.startswith(
        "Overnight, demo 2026-03-05 to 2026-03-06 (backfill): failed. 1 of 2 days failed: 2026"
    )
    assert found["scheduled"] > 0, "the nightly schedule made no runs"
    assert found["limits"]["nights"] == 1 and found["limits"]["by-hand"] is None
    assert found["deployments"] == ["by-hand"] * 5 + ["nightly"]
    wanted = {"sessions", "learning-curve", "metrics", "run-report", "train-progress", "backfill-days"}
    assert wanted | ({"disk"} if SLOW else set()) <= set(found["keys"])
    config = json.loads(next((tmp_path / "root" / "models").glob("*/config.json")).read_text())
    assert (config["model"]["body"]["name"], config["model"]["body"]["num_layers"]) == ("ligr", 1)


def test_a_taken_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} is taken"), running(tmp_path, None, port):
            pass
