"""The deployments, on a real server with a real worker: ad-hoc runs complete, the nightly one is scheduled, new files and
events that other programs send start one night each, and when it is stopped nothing is left.

One server for all: to start it takes as much CPU time as two nights.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.connections import url_of
from flows.environment import PATIENT, QUIET
from flows.serve import running
from schemas.errors import InputError
from tests.flows.conftest import LONG_SECONDS, clean_environment, listening, overnight
from tests.flows.served import ASK_EVERY, Served, needs_proc, served, stopped_in_training, wait_until
from tests.slow import SLOW

PASSWORD = "admin:a-long-word"
RUN = """
import json, sys
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
def run(name, parameters):
    done = run_deployment(name, parameters=parameters, timeout=3000, poll_interval=2)
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
RETRAIN = [
    f"--set={change}"
    for change in ("body.num_layers=1", "training.epochs=1", "training.threads=1", "promotion.min_gain=9")
]


@needs_proc
@pytest.mark.fault("`overnight serve` is stopped in training", outcome="no process is left; the next night goes on")
def test_what_starts_runs_on_a_server_and_that_nothing_is_left_of_it(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, source = tmp_path / "root", shutil.copytree(shop, tmp_path / "shop")
    seen_often = {"PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT2S"}
    monkeypatch.setenv("PREFECT_HOME", str(root / "prefect"))
    with (
        listening() as (address, messages),
        served(root, source, "--watch=0.2", auth=PASSWORD, OVERNIGHT_WEBHOOK=address, **seen_often) as night,
    ):
        ad_hoc_runs_complete(night, source, address, messages)
        files_and_events_start_one_night_each(night, source)
        stopped_in_training(night, signal.SIGTERM)


def ad_hoc_runs_complete(night: Served, source: Path, webhook: str, messages: list[str]) -> None:
    """A night, a change of the pointer and a backfill with a bad day by the deployments, then a night in a terminal."""
    parameters = {
        "data": {"dataset": "demo", "source": str(source), "root": str(night.root)},
        "model": {"preset": "esasrec", "body": {"num_layers": 1}},
        "training": {"epochs": 1, "threads": 1},
        "promotion": {"min_gain": 9.0},  # a first model is promoted on no machine
    }
    here = {"OVERNIGHT_WEBHOOK": webhook, "PREFECT_API_AUTH_STRING": PASSWORD}
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(parameters), *(["prune"] if SLOW else [])],
        env=clean_environment() | QUIET | PATIENT | here | {"PREFECT_API_URL": api_of(night)},
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # In a terminal, with nothing said of where the server is: a run there, too.
    given = ["--preset", "esasrec", *RETRAIN, "--source", source, "--root", night.root]
    again = overnight("retrain", *given, environment=clean_environment() | here)
    assert "Nothing to do" in again.stdout and "This run in the Prefect UI" in again.stdout, again.stdout + again.stderr
    linked = re.findall(r"\]\((http://127.0.0.1:\d+/[^)]*)\)", done.stdout)
    pages = [urllib.request.urlopen(link, timeout=LONG_SECONDS).read() for link in linked]
    whole = [run for run in night.ask("POST", "/flow_runs/filter", {}) if run["state_name"] in ("Completed", "Cached")]
    assert sum(run["name"] == "demo 2026-03-05" for run in whole) >= 2, whole
    assert any(b"demo" in page for page in pages), "what the run links to opens"
    found = json.loads(done.stdout.splitlines()[-1])
    retrain = found["runs"]["retrain"]
    assert retrain["state"] == "Completed" and "ndcg@20" in retrain["message"], found
    assert retrain["name"] == "demo 2026-03-05"
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
    config = json.loads(next((night.root / "models").glob("*/config.json")).read_text())
    assert (config["model"]["body"]["name"], config["model"]["body"]["num_layers"]) == ("ligr", 1)


def files_and_events_start_one_night_each(night: Served, source: Path) -> None:
    """While the queue of nights is paused: what becomes of its runs is tested above."""
    queue, watched = "/work_pools/overnight/queues/nights", night.root / "watched" / "nightly.json"
    night.ask("PATCH", queue, {"is_paused": True})
    before = {run["id"] for run in runs(night)}
    wait_until(watched.is_file)
    newest = source / "events" / "2026-03-06.parquet"
    newest.write_bytes((source / "events" / "2026-03-05.parquet").read_bytes())
    wait_until(lambda: len(runs(night)) > len(before), ASK_EVERY)
    wait_until(lambda: newest.name in watched.read_text())
    (of_files,) = (run for run in runs(night) if run["id"] not in before)
    assert of_files["name"] == f"new files: events/{newest.name}" and "new-files" in of_files["tags"]

    with temporary_settings({PREFECT_API_URL: api_of(night), PREFECT_API_AUTH_STRING: PASSWORD}):
        Secret(value="sqlite:///a-secret.db").save("shop-db")
        assert url_of("SHOP_DB") == "sqlite:///a-secret.db"
        with pytest.raises(InputError, match="Set the environment variable NO_DB"):
            url_of("NO_DB")

    (automation,) = night.ask("POST", "/automations/filter", {})
    automation["trigger"]["within"] = 10  # the shortest that Prefect takes
    night.ask("PUT", f"/automations/{automation['id']}", {key: automation[key] for key in UPDATED})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        send_event(replace(night, headers={}))
    sleep(14)
    assert len(runs(night)) == len(before) + 1, "no event has come, and none starts a night"
    for _ in range(4):
        send_event(night)
        sleep(0.5)
    wait_until(lambda: len(runs(night)) == len(before) + 2, ASK_EVERY)
    sleep(3)  # each event alone would have started a run by then
    assert len(runs(night)) == len(before) + 2
    for run in runs(night):
        if run["id"] not in before:
            night.ask("DELETE", f"/flow_runs/{run['id']}")
    newest.unlink()
    night.ask("PATCH", queue, {"is_paused": False})


UPDATED = ("name", "description", "enabled", "trigger", "actions", "actions_on_trigger", "actions_on_resolve")


def send_event(night: Served) -> None:
    event = {"event": "overnight.new-data", "resource": {"prefect.resource.id": "overnight.source"}}
    night.ask("POST", "/events", [event | {"id": str(uuid.uuid4()), "occurred": datetime.now(UTC).isoformat()}])


def runs(night: Served) -> list[dict[str, Any]]:
    """Those that are not of the schedule."""
    return [run for run in night.ask("POST", "/flow_runs/filter", {}) if not run["auto_scheduled"]]


def api_of(night: Served) -> str:
    return f"http://127.0.0.1:{night.port}/api"


def test_a_taken_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} is taken"), running(tmp_path, None, port):
            pass
