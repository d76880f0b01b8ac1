"""A service reads the model in service while it is changed: the old one or the new, never half a pointer."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from modeling.evaluation.pointer import champion_of, put_in_service
from modeling.service.recommender import Recommender
from schemas.artifacts import Artifacts
from tests.cases.test_model_in_service import Shop
from tests.cases.two_nights import answers, models_of


@pytest.fixture
def shop(two_nights: Shop, tmp_path: Path) -> Shop:
    return two_nights.copy(tmp_path)


class Service(threading.Thread):
    """Reads the pointer over and over while it is changed, and loads each model that it finds, as a service does."""

    def __init__(self, artifacts: Artifacts) -> None:
        super().__init__(daemon=True)
        self.artifacts, self.stop = artifacts, threading.Event()
        self.reads, self.errors = 0, list[str]()
        self.loaded: dict[str, Recommender] = {}
        self.seen: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                champion = champion_of(self.artifacts, "shop")
                assert champion
                if champion.model not in self.loaded:
                    folder = self.artifacts.get(champion.model, contents=True).folder
                    self.loaded[champion.model] = Recommender(folder)
                if self.seen[-1:] != [champion.model]:
                    self.seen.append(champion.model)
                    assert self.loaded[champion.model].recommend([["i01", "i02"]], 3)
                self.reads += 1
            except Exception as error:
                self.errors.append(repr(error))

    def waits_for(self, model: str) -> None:
        """Until it has answered by this model; a service that never does so hangs the test, not a deadline."""
        while self.seen[-1:] != [model] and not self.errors:
            time.sleep(0.001)


def test_a_service_reads_the_old_model_or_the_new_while_it_is_changed_by_hand(shop: Shop) -> None:
    first, second = models_of(shop)
    root = ["--root", shop.artifacts.root, "--dataset", "shop"]
    service = Service(shop.artifacts)
    service.start()
    try:
        service.waits_for(second)
        steps: list[tuple[list[str], str]] = [
            (["rollback", "--because", "odd lists"], first),
            (["promote", second, "--because", "they were not"], second),
            (["promote", "--hold", "--because", "a sale"], second),
            (["promote", first, "--because", "for the sale"], first),
            (["promote", "--release", "--because", "it is over"], first),
            (["rollback"], second),
        ]
        for words, model in steps:
            code, output = answers(*words, *root)
            assert code == 0, output
            service.waits_for(model)
    finally:
        service.stop.set()
        service.join()
    assert not service.errors and service.reads
    assert service.seen == [second, first, second, first, second]
    champion = champion_of(shop.artifacts, "shop")
    assert champion
    by_hand = [(change.by, change.because) for change in champion.history[2:]]
    assert by_hand == [
        ("rollback", "odd lists"),
        ("promote", "they were not"),
        ("promote", "for the sale"),
        ("rollback", ""),
    ]
    assert [(note.action, note.because) for note in champion.notes] == [("hold", "a sale"), ("release", "it is over")]


def test_a_service_never_reads_half_a_pointer(shop: Shop) -> None:
    """It is changed as fast as can be, and every read finds one of both models."""
    first, second = models_of(shop)
    service = Service(shop.artifacts)
    service.start()
    try:
        service.waits_for(second)
        for number in range(40):
            put_in_service(shop.artifacts, "shop", (first, second)[number % 2], by="promote")
    finally:
        service.stop.set()
        service.join()
    assert not service.errors and set(service.seen) <= {first, second}
