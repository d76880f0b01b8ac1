"""What is shown and clicked over HTTP, and two models that answer at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modeling.service.api.app import Service
from modeling.service.api.in_service import InService, Place
from modeling.service.api.limits import Limits
from modeling.service.api.metrics import Metrics
from modeling.service.api.side_by_side import Second
from modeling.service.api.tracked import read_events
from modeling.service.tracking.journal import Journal
from modeling.service.tracking.parts import ANSWERS, EVENTS
from modeling.service.tracking.split import Split
from modeling.service.tracking.store import Store
from modeling.service.tracking.table import read_kind, shown_items
from schemas.errors import InputError
from tests.modeling.service.conftest import Shop, serving

NOW = datetime(2026, 3, 8, 12, tzinfo=UTC)
WEEK = timedelta(days=7)


def test_answers_are_named_and_what_becomes_of_them_is_kept(
    acts: Shop, service_of: Callable[..., Service], tmp_path: Path
) -> None:
    service = service_of(store=Store(tmp_path, "hashed"))
    with serving(service) as client:
        body = {
            "sessions": [{"items": ["i01"], "user_id": "ann"}, {"items": [], "session_id": 7}, {"items": [1.5]}],
            "k": 3,
        }
        first, second, wrong = client.post("/recommend", json=body).json()["sessions"]
        of_list = client.get("/users/ben?k=2").json()
        ids = [answer["recommendation_id"] for answer in (first, second, of_list)]
        assert len(set(ids)) == 3 and "recommendation_id" not in wrong and "arm" not in first
        events = [
            {"event": "impression", "recommendation_id": ids[0], "user_id": "ann"},
            {"event": "click", "recommendation_id": ids[0], "item": first["items"][1]["item"]},
            {
                "event": "impression",
                "recommendation_id": ids[1],
                "items": [entry["item"] for entry in second["items"][:2]],
            },
            {"event": "buy", "item": "i01"},
        ]
        answer = client.post("/track", json={"events": events})
        assert answer.status_code == 200 and answer.json()["accepted"] == 3
        assert answer.json()["errors"] == [{"event": 3, "error": 'events[3].event is impression or click, got "buy".'}]
        assert client.post("/track", json={"event": "click"}).status_code == 422
        now = shown_items(tmp_path)  # while the service runs, from its journals
        value = service.metrics.registry.get_sample_value
        assert value("overnight_api_tracked_events_total", {"event": "impression"}) == 3
        assert value("overnight_api_track_errors_total") == 2
        assert value("overnight_api_answers_total", {"arm": "", "model": acts.models[0].name}) == 3
        assert 'route="/track",status="200"' in client.get("/metrics").text
    later = shown_items(tmp_path)  # when it has ended, from Parquet
    assert now.rows.equals(later.rows) and later.unplaced == 0 and not list((tmp_path / "journals").iterdir())
    rows = later.rows.filter(recommendation_id=ids[0])
    assert rows["clicked"].to_list() == [False, True, False] and rows["position"].to_list() == [1, 2, 3]
    assert set(rows["model"]) == {acts.models[0].name} and set(rows["source"]) == {"model"}
    assert later.rows.height == 5
    for kind in (EVENTS, ANSWERS):
        kept = read_kind(tmp_path, kind)
        assert "ann" not in json.dumps(kept.to_dicts(), default=str)
    assert rows["user"].n_unique() == 1 and len(rows["user"][0]) == 32


def test_nothing_is_tracked_where_nobody_asks_for_it(service_of: Callable[..., Service]) -> None:
    with serving(service_of()) as client:
        answer = client.post("/track", json={"event": "click", "item": "i01"})
        assert answer.status_code == 404 and "serving: {tracking: {}}" in answer.json()["error"]
        assert "recommendation_id" not in client.post("/recommend", json={"items": ["i01"]}).json()["sessions"][0]


def test_a_full_disk_stops_no_recommendation(
    service_of: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with serving(service_of(store=Store(tmp_path))) as client:
        monkeypatch.setattr(Journal, "append", full)
        answer = client.post("/recommend", json={"items": ["i01"]}).json()["sessions"][0]
        assert answer["items"] and answer["recommendation_id"] is None
        refused = client.post("/track", json={"event": "click", "item": "i01"})
        assert refused.status_code == 503 and "send them again" in refused.json()["error"]
        assert refused.headers["retry-after"] == "5"
        assert "overnight_api_track_write_failures_total 2.0" in client.get("/metrics").text
        monkeypatch.undo()
        assert client.post("/track", json={"event": "click", "item": "i01"}).status_code == 200


def test_two_models_answer_each_its_users(acts: Shop, service_of: Callable[..., Service], tmp_path: Path) -> None:
    places = [acts.place(1)]
    other = InService(lambda: places[0], Metrics())
    other.refresh()
    split = Split(0.5, "march")
    service = service_of(store=Store(tmp_path, "plain"), second=Second(other, split))
    names = {"a": acts.models[0].name, "b": acts.models[1].name}
    users = [f"u{number}" for number in range(30)]
    expected = {arm: acts.recommender(number).recommend([["i01"]], 4)[0] for number, arm in enumerate("ab")}
    with serving(service) as client:
        sessions = [{"items": ["i01"], "user_id": user} for user in users]
        answer = client.post("/recommend", json={"sessions": [*sessions, {"items": ["i01"]}], "k": 4})
        assert set(answer.headers["x-overnight-model"].split(", ")) == set(names.values())
        *found, nobody = answer.json()["sessions"]
        assert "arm" not in nobody and [entry["item"] for entry in nobody["items"]] == expected["a"]
        for user, given in zip(users, found, strict=True):
            arm = split.arm(user)
            assert (given["arm"], given["model"]) == (arm, names[arm])
            assert [entry["item"] for entry in given["items"]] == expected[arm]
        assert {given["arm"] for given in found} == {"a", "b"}
        for arm in "ab":
            user = next(user for user in users if split.arm(user) == arm)
            for key in ("user_id", "session_id"):  # who has no user is drawn by the session
                alone = client.post("/recommend", json={"items": ["i01"], key: user})
                assert alone.headers["x-overnight-model"] == names[arm] == alone.json()["model"]
            labels = client.post("/predict", json={"items": ["i01"], "user_id": user})
            assert labels.headers["x-overnight-model"] == names["a"]
        assert client.get("/health").json()["side_by_side"] == {"model": names["b"], "share": 0.5}
        assert "overnight_api_side_by_side 1.0" in client.get("/metrics").text
        places[0] = acts.place(0)  # a model is not compared with itself
        other.refresh()
        same = client.post("/recommend", json={"items": ["i01"], "user_id": users[0]}).json()["sessions"][0]
        assert "arm" not in same
        assert client.get("/health").json()["side_by_side"]["why"] == "it is the model in service"
        kept = read_kind(tmp_path, ANSWERS)
    of_b = kept.filter(arm="b")
    assert (
        set(of_b["model"]) == {names["b"]} and set(of_b["against"]) == {names["a"]} and set(of_b["salt"]) == {"march"}
    )


def test_one_model_answers_while_the_second_does_not_load(service_of: Callable[..., Service], tmp_path: Path) -> None:
    def gone() -> Place:
        raise InputError("it has been pruned")

    other = InService(gone, Metrics())
    other.refresh()
    with serving(service_of(store=Store(tmp_path), second=Second(other, Split(0.9)))) as client:
        assert "arm" not in client.post("/recommend", json={"items": ["i01"], "user_id": "ann"}).json()["sessions"][0]
        assert client.get("/health").json()["side_by_side"] == {"model": None, "share": 0, "why": "it has been pruned"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b'{"event": NaN}', "NaN"),
        (b"[]", "got []"),
        (b"{}", "event is impression or click, got null"),
        (b'{"event": "buy", "item": "a"}', 'got "buy"'),
        (b'{"event": "click", "itm": "a"}', "Did you mean 'item'?"),
        (b'{"event": "click"}', "names no item"),
        (b'{"event": "click", "recommendation_id": "r"}', "names no item"),
        (b'{"event": "impression"}', "names no item"),
        (b'{"event": "impression", "items": []}', "1 to 3 are allowed"),
        (b'{"event": "impression", "items": ["a", "b", "c", "d"]}', "holds 4; 1 to 3 are allowed"),
        (b'{"event": "impression", "items": ["a", null]}', "items[1] is an item id, text or an integer, got null"),
        (b'{"event": "impression", "items": "a"}', "a list of item ids"),
        (b'{"event": "click", "item": "a", "items": ["a"]}', "give one of them"),
        (b'{"event": "click", "item": ""}', 'got ""'),
        (b'{"event": "click", "item": true}', "got true"),
        (b'{"event": "click", "item": 1.5}', "got 1.5"),
        (b'{"event": "click", "item": "%s"}' % (b"x" * 513), "513 characters; 512 are allowed"),
        (b'{"event": "click", "item": "\\ud800"}', "surrogate"),
        (b'{"event": "click", "item": "a", "position": 0}', "position is an integer from 1"),
        (b'{"event": "click", "item": "a", "position": "1"}', 'got "1"'),
        (b'{"event": "click", "item": "a", "user_id": ["ann"]}', "user_id is an id"),
        (b'{"event": "click", "item": "a", "model": 7}', "model is text, got 7"),
        (b'{"event": "click", "item": "a", "timestamp": "noon"}', 'got "noon"'),
        (b'{"event": "click", "item": "a", "timestamp": 1772971200}', "got 1772971200"),
        (b'{"event": "click", "item": "a", "timestamp": "2026-03-08T12:06:00Z"}', "360 s after it came; up to 300 s"),
        (b'{"event": "click", "item": "a", "timestamp": "2026-03-01T11:59:00"}', "up to 168 hours"),
        (b'{"event": "click", "item": "a", "timestamp": "0001-01-01T00:00:00+23:00"}', "timestamp"),
        (b'{"events": {}}', "a list of objects"),
        (b'{"events": []}', "0; 1 to 2 are allowed"),
        (b'{"events": [{}, {}, {}]}', "3; 1 to 2 are allowed"),
        (b'{"events": [7]}', "events[0] is an object"),
        (b'{"events": [{"event": "click"}], "user_id": "ann"}', "put it into an event"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_events(body, Limits(tracked=2, items=3), late=WEEK, now=NOW)
    assert said in str(caught.value)


def test_events_as_they_are_written() -> None:
    body = {
        "events": [
            {"event": "impression", "items": ["a", 7], "position": 3, "timestamp": "2026-03-08T13:00:00+02:00"},
            {"event": "click", "item": 7, "user_id": 5, "session_id": None, "model": ""},
        ]
    }
    first, second, click = read_events(json.dumps(body).encode(), Limits(), late=WEEK, now=NOW).records
    assert (first["item_id"], first["position"], second["item_id"], second["position"]) == ("a", 3, "7", 4)
    assert first["timestamp"] == click["timestamp"] - 3_600_000_000 and first["received"] == click["timestamp"]
    assert (click["item_id"], click["user_id"], click["session_id"], click["model"]) == ("7", "5", None, None)
