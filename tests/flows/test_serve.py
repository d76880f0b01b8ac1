"""The deployment, on a real server with a real worker: an ad-hoc run completes, the nightly one is scheduled."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flows.environment import PATIENT, QUIET
from flows.serve import running, server_environment
from schemas.errors import InputError
from tests.flows.conftest import LONG_SECONDS, clean_environment

RUN = """
import json, sys
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.deployments import run_deployment
run = run_deployment("retrain/nightly", parameters=json.loads(sys.argv[1]), timeout=3000, poll_interval=1)
with get_client(sync_client=True) as client:
    scheduled = [r for r in client.read_flow_runs() if r.auto_scheduled]
    keys = [a.key for a in client.read_artifacts()]
    pool = client.read_work_pool("overnight")
print(json.dumps({"state": run.state.name, "message": run.state.message, "scheduled": len(scheduled), "keys": keys,
                  "limit": pool.concurrency_limit}))
"""
RUNS = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    print(sum(run.state_name in ("Completed", "Cached") for run in client.read_flow_runs()))
"""
RETRAIN = [sys.executable, "-m", "flows.cli", "retrain", "--preset", "esasrec"]
RETRAIN += [f"--set={change}" for change in ("body.num_layers=1", "training.epochs=1", "training.threads=1")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_ad_hoc_run_of_the_deployment_completes(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    for name, value in (QUIET | PATIENT).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    (tmp_path / "prefect").mkdir()
    port = free_port()
    parameters = {
        "data": {"dataset": "demo", "source": str(shop), "root": str(tmp_path / "root")},
        "preset": "esasrec",
        "body": {"num_layers": 1},
        "training": {"epochs": 1, "threads": 1},
    }
    with running(tmp_path / "root", None, port):
        environment = server_environment(tmp_path / "root", None, port)
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(parameters)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONG_SECONDS,
        )
        # In a terminal, with nothing said of the server: a run there, too.
        again = subprocess.run(
            [*RETRAIN, "--source", shop, "--root", tmp_path / "root"], capture_output=True, text=True
        )
        runs = subprocess.run([sys.executable, "-c", RUNS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to do" in again.stdout and "This run in the Prefect UI" in again.stdout, again.stdout + again.stderr
    assert json.loads(runs.stdout.splitlines()[-1]) == 2, runs.stdout + runs.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["state"] == "Completed", found
    assert "ndcg@20" in found["message"]
    assert found["scheduled"] > 0, "the nightly schedule made no runs"
    assert found["limit"] == 1
    assert {"sessions", "learning-curve", "metrics", "run-report", "train-progress"} <= set(found["keys"])
    config = json.loads(next((tmp_path / "root" / "models").glob("*/config.json")).read_text())
    assert (config["model"]["body"]["name"], config["model"]["body"]["num_layers"]) == ("ligr", 1)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} is taken"), running(tmp_path, None, port):
            pass
