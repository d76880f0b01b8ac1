"""The forms as a browser shows them: a real server, its UI, every deployment; choosing, submitting, a wrong value refused."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.environment import PATIENT, QUIET
from flows.pool import POOL
from flows.serve import running
from flows.settings.form import UNSET, chosen
from tests.chromium import CHROMIUM, Page, chromium
from tests.flows.conftest import answer_of, begun, clean_environment, free_port
from tests.flows.test_form import drawn
from tests.slow import slow

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

FIELD = """[...document.querySelectorAll('.schema-form-property')].filter(
  e => e.querySelector('.schema-form-property__label')?.innerText.startsWith('{}')).at(-1)"""
BUTTON = "[...document.querySelectorAll('button')].find(b => b.innerText.trim() == '{}')"
CHOOSE = (
    "(s => {{s.value = '{}'; s.dispatchEvent(new Event('change', {{bubbles: true}}))}})({}.querySelector('select'))"
)
JSON_EDITORS = "document.querySelectorAll('.cm-editor, .p-code-input').length"


class Server:
    """The API and the UI of a server."""

    def __init__(self, address: str) -> None:
        self.address = address
        flows = {flow["id"]: flow["name"] for flow in self.ask("flows/filter")}
        self.deployments = {flows[item["flow_id"]]: item["id"] for item in self.ask("deployments/filter")}

    def ask(self, path: str, body: Any = None, method: str = "POST") -> Any:
        data = json.dumps(body or {}).encode() if method != "GET" else None
        request = urllib.request.Request(f"{self.address}/api/{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        return answer_of(request)

    def started(self) -> list[Any]:
        """The runs that no schedule made."""
        return [run for run in self.ask("flow_runs/filter") if not run["auto_scheduled"]]

    def open_form(self, page: Page, flow: str) -> None:
        page.open(f"{self.address}/deployments/deployment/{self.deployments[flow]}/run")
        deployment = self.ask(f"deployments/{self.deployments[flow]}", method="GET")
        schema = deployment["parameter_openapi_schema"]
        fields = len(list(drawn(schema, schema.get("definitions", {}))))
        page.wait(
            f"document.querySelectorAll('.schema-form-property').length >= {fields} && !!({BUTTON.format('Submit')})"
        )


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose worker takes no run up."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    for name, value in (QUIET | PATIENT).items():
        monkeypatch.setenv(name, value)
    begun(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    port = free_port()
    with running(tmp_path / "root", None, port):
        served = Server(f"http://127.0.0.1:{port}")
        served.ask(f"work_pools/{POOL}", {"is_paused": True}, "PATCH")
        yield served


@slow  # tests/flows/test_form.py holds the schemas to the rules that the browser's drawing depends on
def test_forms_are_drawn_chosen_from_and_refuse_what_is_wrong(server: Server, tmp_path: Path) -> None:
    with chromium(tmp_path) as page:
        for flow in server.deployments:
            server.open_form(page, flow)
            text = page.text()
            assert "Property is type" not in text, text
            assert page.value(JSON_EDITORS) == 0, f"{flow}: something is typed as JSON"
            assert page.value("document.documentElement.scrollWidth <= innerWidth"), flow

        page.open(f"{server.address}/v2/deployments/deployment/{server.deployments['retrain']}/run")  # the UI to come
        page.wait(f"document.body.innerText.includes('{UNSET}cpu') && !!({BUTTON.format('Submit')})")
        assert "Property is type" not in page.text()

        server.open_form(page, "retrain")
        first = page.value(f"({FIELD.format('Preset')}).querySelector('select').value")
        assert first == f"{UNSET}what suits the dataset"
        page.value(CHOOSE.format("gru4rec", FIELD.format("Preset")))
        page.value(CHOOSE.format("gbce", FIELD.format("Loss")))
        page.click(f"({FIELD.format('Epochs')}).querySelector('input')")
        page.write("0")
        page.click(BUTTON.format("Submit"))
        page.wait("document.body.innerText.includes(\"Validation failed for field 'training.epochs'\")")
        assert server.started() == []

        page.click("document.querySelector('.p-toast__close-btn')")  # it lies over the button
        page.wait("!document.querySelector('.p-toast__card')")
        page.value(f"({FIELD.format('Epochs')}).querySelector('input').select()")
        page.write("3")
        page.click(BUTTON.format("Submit"))
        page.wait("!location.pathname.endsWith('/run')")
        (run,) = server.started()
        assert {name: given for name, given in chosen(run["parameters"]).items() if given} == {
            "data": {"dataset": "demo"},
            "model": {"preset": "gru4rec", "loss": {"name": "gbce"}},
            "training": {"epochs": 3},
        }
