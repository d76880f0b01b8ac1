"""What the service answers is what the recommender gives for the same input, whoever asks at the same time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import polars as pl
import pytest

from modeling.service.api.app import Service
from modeling.service.api.log import Log
from modeling.service.rules import Rules
from tests.modeling.service.conftest import DATASET, Shop, following, serving

NAMES = {theirs: ours for ours, theirs in DATASET["events"]["columns"].items()}  # type: ignore[index]


def ask(client: httpx.Client, body: dict[str, Any], path: str = "/recommend") -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["sessions"]


def items(answer: dict[str, Any]) -> list[Any]:
    return [entry["item"] for entry in answer["items"]]


def ours(events: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(events).rename(NAMES)


def test_events_are_read_with_their_own_features(acts: Shop, service_of: Callable[..., Service]) -> None:
    """Raw events give what was evaluated; with another's features it would be half of that."""
    histories = [events[:-1] for events in acts.test]
    with serving(service_of(log=Log(NAMES))) as client:
        body = {"sessions": [{"session_id": n, "events": events} for n, events in enumerate(histories[:100])], "k": 1}
        found = ask(client, body)
        hits = [items(answer) == [following(events[-1])] for answer, events in zip(found, histories, strict=False)]
        assert sum(hits) / len(hits) > 0.95
        assert all(answer["not_given"] == [] and answer["unknown_items"] == [] for answer in found)
        bare = [[event["sku"] for event in events] for events in histories[:100]]
        answers = ask(client, {"sessions": [{"items": history} for history in bare], "k": 1})
    assert answers[0]["not_given"] == ["action", "kind", "hour"]
    right = [items(answer) == [following(events[-1])] for answer, events in zip(answers, histories, strict=False)]
    assert sum(right) / len(right) < 0.8  # what was done is not known, and is not taken from somebody else


@pytest.mark.parametrize("hide", [True, False])
def test_lists_are_those_of_the_recommender(acts: Shop, service_of: Callable[..., Service], hide: bool) -> None:
    recommender = acts.recommender()
    histories = [events[: 1 + number % 4] for number, events in enumerate(acts.test[:40])]
    bare = [[event["sku"] for event in events] + ["ghost"] * (number % 2) for number, events in enumerate(histories)]
    with serving(service_of(log=Log(NAMES))) as client:
        together = ask(client, {"sessions": [{"events": events} for events in histories], "k": 5, "hide_seen": hide})
        alone = [ask(client, {"events": events, "k": 5, "hide_seen": hide})[0] for events in histories[:5]]
        of_items = ask(client, {"sessions": [{"items": history} for history in bare], "k": 5, "hide_seen": hide})
    expected = [recommender.recommend(ours(events), 5, filter_seen=hide)[0] for events in histories]
    assert [items(answer) for answer in together] == expected
    assert [items(answer) for answer in alone] == expected[:5]
    assert [items(answer) for answer in of_items] == recommender.recommend(bare, 5, filter_seen=hide)
    assert [answer["unknown_items"] for answer in of_items] == [["ghost"] * (number % 2) for number in range(40)]
    assert all(entry["source"] == "model" for answer in together for entry in answer["items"])


def test_requests_that_wait_are_answered_together_each_with_its_own(
    acts: Shop, service_of: Callable[..., Service]
) -> None:
    recommender = acts.recommender()
    histories = [events[: 1 + number % 4] for number, events in enumerate(acts.test[:60])]
    service = service_of(log=Log(NAMES))
    with serving(service) as client, ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda n: ask(client, {"events": histories[n], "k": 3 + n % 3})[0], range(60)))
        counted = service.metrics.registry.get_sample_value("overnight_api_batch_sessions_sum")
        batches = service.metrics.registry.get_sample_value("overnight_api_batch_sessions_count")
    assert [items(answer) for answer in found] == [
        recommender.recommend(ours(events), 3 + number % 3)[0] for number, events in enumerate(histories)
    ]
    assert counted == 60 and batches is not None and batches < 60


def test_one_bad_session_spoils_no_other(acts: Shop, service_of: Callable[..., Service]) -> None:
    good = {"events": acts.test[0][:2]}
    bad = [
        {"events": [{"sku": "i01", "at": "yesterday", "act": "view", "kind": "k1"}]},
        {"events": [{"sku": None, "at": "2026-03-05T09:00:00Z"}]},
        {"events": [{"sku": "i01", "act": ["view"]}, {"sku": "i02", "act": "view"}]},
        {"items": [["i01"]]},
        {"events": "i01"},
        "i01",
        {},
    ]
    service = service_of(log=Log(NAMES))
    with serving(service) as client:
        alone = ask(client, good)[0]
        sessions = [part for fault in bad for part in (good, fault)]
        found = ask(client, {"sessions": sessions})
        assert [answer.get("items") for answer in found[::2]] == [alone["items"]] * len(bad)
        assert all("error" in answer and "items" not in answer for answer in found[1::2])
        assert "timestamp" in found[1]["error"] and "'yesterday'" in found[1]["error"]
        for fault in bad:
            if isinstance(fault, dict):
                assert client.post("/recommend", json=fault).status_code == 422
        assert service.metrics.registry.get_sample_value("overnight_api_session_errors_total") == len(bad) + 2


def test_labels_are_those_of_the_recommender(acts: Shop, service_of: Callable[..., Service]) -> None:
    recommender = acts.recommender()
    histories = [events[:3] for events in acts.test[:10]]
    with serving(service_of(log=Log(NAMES))) as client:
        found = ask(client, {"sessions": [*({"events": events} for events in histories), {"items": []}]}, "/predict")
    wanted = recommender.predict(pl.concat([ours(events) for events in histories]))["bought"].tolist()
    assert [answer["predicted"]["bought"] for answer in found[:-1]] == pytest.approx(wanted, abs=1e-5)
    assert found[-1]["predicted"] is None


def test_reasons_are_those_of_the_recommender(acts: Shop, service_of: Callable[..., Service]) -> None:
    events = acts.test[0][:3]
    wanted = acts.recommender().because(ours(events), 3, events=2)[0]
    with serving(service_of(log=Log(NAMES))) as client:
        found, empty = ask(client, {"sessions": [{"events": events}, {"items": []}], "k": 3, "explain": 2})
        single = ask(client, {"items": ["i01"], "k": 1, "explain": True})[0]
    for entry, reason in zip(found["items"], wanted, strict=True):
        assert entry["item"] == reason.item
        assert [named["item"] for named in entry["because"]] == [item for item, _ in reason.events]
        assert [named["fall"] for named in entry["because"]] == pytest.approx(
            [fall for _, fall in reason.events], abs=1e-4
        )
    assert "because" not in empty["items"][0]
    assert single["items"][0]["because"] == [{"item": "i01", "fall": None}]


def test_reasons_are_of_the_list_that_is_answered(acts: Shop, service_of: Callable[..., Service]) -> None:
    """Also where the session is longer than what the model reads, and where rules leave items out."""
    rules = Rules(
        table=pl.DataFrame({"item": ["i05", "i06", "i07"], "eligible": [False, True, False]}),
        unlisted=True,
    )
    service = service_of(log=Log(NAMES), read_rules=iter([rules, *[None] * 1000]).__next__)
    longest = acts.recommender().model.longest
    history = ["i00", "i01", "i02", *["i03", "i04"] * longest]
    with serving(service) as client:
        body = {"items": history, "k": 6, "hide_seen": True, "explain": True}
        (answer,) = ask(client, body)
        (plain,) = ask(client, body | {"explain": False})
    assert items(answer) == items(plain) and not {"i00", "i01", "i02", "i05", "i07"} & set(items(answer))
    assert len(items(answer)) == 5
    assert all(entry["because"] for entry in answer["items"] if entry["source"] == "model")
