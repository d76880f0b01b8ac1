"""New files, and events that other programs send, start a night: one, when no more of them come."""

from __future__ import annotations

import base64
import json
import os
import shutil
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.connections import url_of
from flows.environment import PATIENT, QUIET
from flows.serve import running
from flows.triggers import Watch, key_of, listing, name_of
from schemas.dataset import read_dataset
from schemas.errors import InputError
from tests.flows.conftest import LONG_SECONDS, answer_of, begun, clean_environment, free_port

AUTH = "admin:a-long-word"


def line(path: str, size: int = 1, stamp: str = "0") -> str:
    return json.dumps([path, size, stamp])


def test_files_are_due_when_none_has_changed_for_a_while(tmp_path: Path) -> None:
    a, b, longer = line("a"), line("b"), line("b", 2)
    watch = Watch(tmp_path / "watched" / "nightly.json")
    assert watch.look({a}, 0.0, 60) == set()  # the first listing of all
    assert watch.look({a, b}, 10.0, 60) == set()
    assert watch.look({a, longer}, 50.0, 60) == set()  # it is still being written
    assert watch.look({a, longer}, 109.0, 60) == set()
    assert watch.look({a, longer}, 110.0, 60) == {longer}
    again = Watch(watch.file)  # killed before it was kept: the same files, and so the same key
    again.look({a, longer}, 0.0, 60)
    assert key_of(again.look({a, longer}, 60.0, 60)) == key_of({longer})
    again.keep({a, longer})
    later = Watch(watch.file)
    assert later.look({a, longer}, 0.0, 0) == set()
    assert later.look({longer}, 1.0, 0) == set()  # files that are removed are no reason
    assert later.look({longer, a}, 2.0, 0) == {a}


def test_every_change_of_a_file_is_seen_and_a_source_that_is_away_is_no_empty_one(shop: Path, tmp_path: Path) -> None:
    source = shutil.copytree(shop, tmp_path / "shop")
    dataset = read_dataset("demo").at(source)
    before = listing(dataset)
    assert len(before) == 5  # four days and the items
    (source / "items.parquet").touch()
    assert len(listing(dataset) - before) == 1
    shutil.copy(source / "events" / "2026-03-02.parquet", source / "events" / "2026-02-27.parquet")
    new = listing(dataset) - before
    assert name_of(new) == "new files: events/2026-02-27.parquet, items.parquet"
    assert name_of({line(name) for name in "dcba"}) == "new files: a, b, c and 1 more"
    shutil.rmtree(source)
    with pytest.raises(InputError):
        listing(dataset)


def test_files_and_events_start_one_night_each(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = shutil.copytree(shop, tmp_path / "shop")
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    settings = {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_API_AUTH_STRING": AUTH}
    settings |= {"PREFECT_API_AUTH_STRING": AUTH, "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT0.5S"}
    for name, value in (QUIET | PATIENT | settings).items():
        monkeypatch.setenv(name, value)
    begun(tmp_path)
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    with running(tmp_path / "root", str(source), port, watch=0.02):
        nights = "/work_pools/overnight/queues/nights"
        ask(api, nights, {"is_paused": True}, "PATCH")  # what becomes of the runs is tested elsewhere
        wait(lambda: (tmp_path / "root" / "watched" / "nightly.json").is_file())
        (source / "events" / "2026-03-06.parquet").write_bytes((source / "events" / "2026-03-05.parquet").read_bytes())
        wait(lambda: bool(runs(api)))
        wait(lambda: "2026-03-06" in (tmp_path / "root" / "watched" / "nightly.json").read_text())
        (of_files,) = runs(api)
        assert of_files["name"] == "new files: events/2026-03-06.parquet" and "new-files" in of_files["tags"]

        server = {PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: AUTH}
        with temporary_settings(server):
            Secret(value="sqlite:///a-secret.db").save("shop-db")
            assert url_of("SHOP_DB") == "sqlite:///a-secret.db"
            with pytest.raises(InputError, match="Set the environment variable NO_DB"):
                url_of("NO_DB")

        (automation,) = ask(api, "/automations/filter", {})
        automation["trigger"]["within"] = 10  # the shortest that Prefect takes
        ask(api, f"/automations/{automation['id']}", {key: automation[key] for key in UPDATED}, "PUT")
        event = {"event": "overnight.new-data", "resource": {"prefect.resource.id": "overnight.source"}}
        with pytest.raises(urllib.error.HTTPError, match="401"):
            send(api, event, auth="admin:another")
        sleep(14)
        assert len(runs(api)) == 1, "no event has come, and none starts a night"
        for _ in range(4):
            send(api, event)
            sleep(0.5)
        wait(lambda: len(runs(api)) == 2)
        sleep(3)  # each event alone would have started a run by then
        assert len(runs(api)) == 2


UPDATED = ("name", "description", "enabled", "trigger", "actions", "actions_on_trigger", "actions_on_resolve")


def send(api: str, event: dict[str, Any], auth: str = AUTH) -> None:
    about = {"id": str(uuid.uuid4()), "occurred": datetime.now(UTC).isoformat()}
    ask(api, "/events", [event | about], auth=auth)


def ask(api: str, path: str, body: Any, method: str = "POST", auth: str = AUTH) -> Any:
    """What the server answers, as JSON."""
    header = base64.b64encode(auth.encode()).decode()
    headers = {"Authorization": f"Basic {header}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{api}{path}", json.dumps(body).encode(), headers, method=method)
    return answer_of(request)


def runs(api: str) -> list[dict[str, Any]]:
    """Those that are not of the schedule."""
    found = ask(api, "/flow_runs/filter", {})
    return [run for run in found if not run["auto_scheduled"]]


def wait(until: Callable[[], bool]) -> None:
    start = monotonic()
    while not until():
        assert monotonic() - start < LONG_SECONDS
        sleep(0.2)
