"""The model is changed while requests run: none is lost, and each is answered by one model."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from modeling.service.api.app import Service
from modeling.service.api.in_service import Place
from schemas.errors import InputError
from tests.modeling.service.conftest import Shop, serving

FEW_SECONDS = 0.05
LONG_SECONDS = 600  # what no change takes, not even on a busy machine


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + LONG_SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_no_request_is_lost_and_each_is_of_one_model(acts: Shop, service_of: Callable[..., Service]) -> None:
    current = [0]
    history = ["i01", "i02"]
    lists = {acts.models[n].name: acts.recommender(n).recommend([history], 12)[0] for n in (0, 1)}
    assert lists[acts.models[0].name] != lists[acts.models[1].name]
    service = service_of(lambda: acts.place(current[0]), poll_seconds=FEW_SECONDS)
    asked, ended = [0] * 8, threading.Event()

    with serving(service) as client:

        def ask_on(number: int) -> list[httpx.Response]:
            answers = []
            while not ended.is_set():
                asked[number] += 1
                answers.append(client.post("/recommend", json={"sessions": [{"items": history}] * 3, "k": 12}))
            return answers

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(ask_on, number) for number in range(8)]
            for number in (1, 0, 1, 0):
                current[0] = number
                until(lambda: service.place and service.place.name == acts.models[current[0]].name)
                before = sum(asked)
                until(lambda: sum(asked) > before + 20)  # noqa: B023
            ended.set()
            answers = [answer for future in running for answer in future.result()]
    assert len(answers) == sum(asked) and {answer.status_code for answer in answers} == {200}
    for answer in answers:
        found = answer.json()
        assert (
            answer.headers["x-overnight-model"] == found["model"] and int(answer.headers["x-overnight-model-age"]) >= 0
        )
        assert [[entry["item"] for entry in one["items"]] for one in found["sessions"]] == [lists[found["model"]]] * 3
    assert {answer.json()["model"] for answer in answers} == set(lists)


def damaged(acts: Shop, folder: Path, fault: str) -> Place:
    shutil.copytree(acts.models[1].folder, folder)
    if fault == "cut":
        weights = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    elif fault == "no items":
        (folder / "items.parquet").unlink()
    else:
        (folder / "config.json").write_text("{}")
    return replace(acts.place(1), name=f"models/{fault}", folder=folder)


@pytest.mark.parametrize("fault", ["cut", "no items", "another config", "no pointer"])
def test_what_does_not_load_leaves_the_model_of_before(
    acts: Shop, service_of: Callable[..., Service], tmp_path: Path, fault: str
) -> None:
    places: list[Any] = [acts.place()]

    def find() -> Place:
        if isinstance(places[-1], InputError):
            raise places[-1]
        return places[-1]  # type: ignore[no-any-return]

    service = service_of(find, poll_seconds=FEW_SECONDS)
    sample = service.metrics.registry.get_sample_value
    with serving(service) as client:
        assert client.get("/health").json()["status"] == "ok"
        said = "no such pointer"
        places.append(InputError(said) if fault == "no pointer" else damaged(acts, tmp_path / "models", fault))
        until(lambda: service.models.fault)
        health = client.get("/health")
        assert health.status_code == 200 and health.json()["status"] == "old model"
        assert health.json()["model"] == acts.models[0].name
        assert health.json()["not_loaded"]["model"] == ("the pointer" if fault == "no pointer" else f"models/{fault}")
        assert health.json()["not_loaded"]["error"]
        answer = client.post("/recommend", json={"items": ["i01"]})
        assert answer.status_code == 200 and answer.json()["model"] == acts.models[0].name
        assert sample("overnight_api_model_load_failures_total") == 1 and sample("overnight_api_model_current") == 0
        places.append(acts.place(1))
        until(lambda: not service.models.fault)
        assert client.get("/health").json()["model"] == acts.models[1].name
        assert sample("overnight_api_model_current") == 1 and sample("overnight_api_model_loads_total") == 2


def test_the_folder_of_the_model_may_go(acts: Shop, service_of: Callable[..., Service], tmp_path: Path) -> None:
    """Nights remove old models; the one that answers has read all it needs."""
    folder = tmp_path / "model"
    shutil.copytree(acts.models[0].folder, folder)
    with serving(service_of(lambda: replace(acts.place(), folder=folder))) as client:
        shutil.rmtree(folder)
        events = [{"item_id": "i01", "timestamp": "2026-03-05T09:00:00Z", "event_type": "view", "kind": "k1"}]
        answer = client.post("/recommend", json={"events": events, "explain": True})
        assert answer.status_code == 200 and len(answer.json()["sessions"][0]["items"]) == 10


def test_without_a_model_it_waits(acts: Shop) -> None:
    found: list[Place] = []

    def find() -> Place:
        if not found:
            raise InputError("Nothing is in service")
        return found[0]

    service = Service(find, poll_seconds=FEW_SECONDS)
    with serving(service) as client:
        assert client.get("/health").status_code == 503
        answer = client.post("/recommend", json={"items": ["i01"]})
        assert answer.status_code == 503 and "promoted" in answer.json()["error"] and answer.headers["retry-after"]
        found.append(acts.place())
        until(lambda: service.place)
        assert client.post("/recommend", json={"items": ["i01"]}).status_code == 200


def test_what_waits_is_answered_when_the_service_ends(acts: Shop, service_of: Callable[..., Service]) -> None:
    service = service_of()
    with ThreadPoolExecutor(10) as pool:
        with serving(service) as client:
            address = f"{client.base_url}/recommend"
            running = [pool.submit(httpx.post, address, json={"items": ["i01"] * 500}, timeout=600) for _ in range(10)]
            until(lambda: any(future.done() for future in running))
        statuses = []
        for future in running:
            try:
                statuses.append(future.result().status_code)
            except httpx.TransportError:  # it was not taken on
                statuses.append(0)
    counted = service.metrics.registry.get_sample_value(
        "overnight_api_requests_total", {"route": "/recommend", "status": "200"}
    )
    assert set(statuses) <= {200, 0} and statuses.count(200) == counted
