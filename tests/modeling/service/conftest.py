"""Two models of a small shop in which what was done to an item says what comes next, and a service on a real socket."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import polars as pl
import pytest

from modeling.config import ModelConfig, TrainingConfig
from modeling.service.api.app import Service
from modeling.service.api.in_service import Place
from modeling.service.api.server import bound, make_server
from modeling.service.recommender import Recommender
from modeling.stages import train
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import Dataset

NUM_ITEMS = 12
DATASET = {
    "name": "acts",
    "events": {
        "path": "events.csv",
        "columns": {"user_id": "user", "item_id": "sku", "timestamp": "at", "event_type": "act", "kind": "kind"},
    },
    "steps": [{"derive": {"columns": {"bought": "event_type = 'cart'"}}}],
    "features": {
        "item_id": {"encode": "category"},
        "action": {"column": "event_type", "encode": "category"},
        "kind": {"encode": "category"},
        "hour": {"column": "timestamp", "encode": "hour"},
    },
    "labels": ["bought"],
}
MODEL = ModelConfig.model_validate(
    {"body": {"dim": 32, "num_layers": 1, "dropout": 0.0}, "heads": {"next_item": {}, "bought": {"name": "binary"}}}
)


def item(number: int) -> str:
    return f"i{number % NUM_ITEMS:02d}"


def following(event: dict[str, Any]) -> str:
    """After a view comes the next item, after a cart the one half of the catalogue away."""
    return item(int(event["sku"][1:]) + (1 if event["act"] == "view" else NUM_ITEMS // 2))


def log_of(days: int, sessions: int, seed: int) -> list[dict[str, Any]]:
    draw, rows, first = random.Random(seed), [], datetime(2026, 3, 1, tzinfo=UTC)
    for day in range(days):
        for number in range(sessions if day < days - 1 else 3):
            at = first + timedelta(days=day, hours=8 + draw.randrange(10))
            sku = item(draw.randrange(NUM_ITEMS))
            for place in range(5):
                event = {
                    "user": f"u{day}-{number}",
                    "sku": sku,
                    "at": (at + timedelta(minutes=place)).isoformat(),
                    "act": draw.choice(["view", "cart"]),
                    "kind": f"k{int(sku[1:]) % 3}",
                }
                rows.append(event)
                sku = following(event)
    return rows


@dataclass(frozen=True)
class Shop:
    artifacts: Artifacts
    sessions: Manifest
    models: list[Manifest]
    test: list[list[dict[str, Any]]]

    def recommender(self, number: int = 0) -> Recommender:
        return Recommender(self.models[number].folder, "cpu", borrow=False)

    def place(self, number: int = 0) -> Place:
        model = self.models[number]
        return Place(name=model.name, folder=model.folder, created=model.created, keep_seen=True)


@pytest.fixture(scope="session")
def acts(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("acts")
    rows = log_of(6, 150, 3)
    pl.DataFrame(rows).write_csv(folder / "events.csv")
    artifacts = Artifacts(folder / "root")
    sessions = prepare(artifacts, Dataset.model_validate(DATASET).at(folder), progress=lambda report: None)
    models = [
        train(artifacts, sessions, MODEL, TrainingConfig(
            epochs=epochs, tokens_per_step=256, learning_rate=5e-3, threads=1, patience=20
        ), lambda line: None)
        for epochs in (12, 2)
    ]  # fmt: skip
    users: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        users.setdefault(row["user"], []).append(row)
    test = [events for events in users.values() if events[0]["at"].startswith("2026-03-05")]
    return Shop(artifacts, sessions, models, test)


@contextlib.contextmanager
def serving(service: Service) -> Iterator[httpx.Client]:
    """The service on a socket of its own, in a thread."""
    listening = bound("127.0.0.1", 0)
    listening.listen()  # who asks before the server runs waits for it
    server = make_server(service, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=600) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture
def service_of(acts: Shop) -> Callable[..., Service]:
    """A service whose model is loaded; `find` says where it is."""

    def make(find: Callable[[], Place] | None = None, **options: Any) -> Service:
        service = Service(find or acts.place, **options)
        service.models.load()
        return service

    return make
