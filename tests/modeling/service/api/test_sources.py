"""What is answered where the model knows nothing, or not enough: each item says where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from flows.api_log import log_of
from flows.recommend import POPULAR, recommend, recommend_all
from modeling.config import ModelConfig, TrainingConfig
from modeling.service.api.app import Service
from modeling.service.api.in_service import Place
from modeling.service.api.log import Log
from modeling.service.recommender import Recommender
from modeling.service.rules import Rules
from modeling.stages import train
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts
from schemas.dataset import Dataset, read_dataset
from tests.modeling.service.conftest import serving


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    folder = tmp_path_factory.mktemp("sources")
    simulate(Shop(days=4, users=80, seed=2), folder / "shop")
    artifacts = Artifacts(folder / "root")
    sessions = prepare(artifacts, read_dataset("demo").at(folder / "shop"), progress=lambda report: None)
    config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}})
    training = TrainingConfig(epochs=1, tokens_per_step=256, threads=1)
    model = train(artifacts, sessions, config, training, lambda line: None)
    place = Place(name=model.name, folder=model.folder, created=model.created, recent=sessions.folder)
    service = Service(lambda: place)
    service.models.load()
    return service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with serving(service) as client:
        yield client


def ask(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["sessions"][0]  # type: ignore[no-any-return]


def names(answer: dict[str, Any], source: str | None = None) -> list[str]:
    return [entry["item"] for entry in answer["items"] if source in (None, entry["source"])]


def taken(service: Service) -> Iterator[tuple[str, int]]:
    """Each item of the prepared sessions, and the hour in which its session ended."""
    loaded = service.models.loaded
    assert loaded is not None and loaded.place.recent is not None
    values = dict(pl.read_parquet(loaded.place.recent / "items.parquet").select("id", "value").iter_rows())
    for rows in map(pl.read_parquet, loaded.place.recent.glob("sessions/*/*.parquet")):
        for items, end in zip(rows["item_id"], rows["end"], strict=True):
            yield from ((values[item], end.hour) for item in items if item in values)


def recommender_of(service: Service) -> Recommender:
    assert service.models.loaded is not None
    return service.models.loaded.recommender


def in_training(service: Service) -> set[str]:
    recommender = recommender_of(service)
    return set(recommender.popular(10**6))


def test_a_session_without_events_gets_what_is_popular_now(service: Service, client: httpx.Client) -> None:
    counts = Counter(name for name, hour in taken(service) if hour == 12 and name in in_training(service))
    answer = ask(client, items=[], asked_at="2026-03-05T12:30:00Z", k=100)
    of_hour = names(answer, "hour")
    assert [counts[name] for name in of_hour] == sorted(counts.values(), reverse=True) and set(of_hour) == set(counts)
    everything = Counter(name for name, _ in taken(service) if name in in_training(service))
    recent = names(answer, "recent")
    assert [everything[name] for name in recent] == sorted((everything[name] for name in recent), reverse=True)
    assert len(set(names(answer))) == len(names(answer)) == min(100, len(in_training(service)))
    assert {entry["score"] for entry in answer["items"]} == {None}


def test_unknown_items_are_answered_by_their_category(service: Service, client: httpx.Client) -> None:
    recommender = recommender_of(service)
    known = recommender.items.filter(pl.col("value").is_in(sorted(in_training(service))))
    vocabulary = pl.read_parquet(recommender.folder / "vocabularies/category.parquet")
    name = known.group_by("category").len().sort("len")["category"][-1]
    category = vocabulary.filter(pl.col("id") == name)["value"][0]
    number = int((known["category"] == name).sum())
    answer = ask(client, events=[{"item_id": "ghost-1", "category": category}], k=10)
    assert answer["unknown_items"] == ["ghost-1"]
    of_category = names(answer, "category")
    assert len(of_category) == min(10, number) and of_category == names(answer)[: len(of_category)]
    assert set(known.filter(pl.col("value").is_in(of_category))["category"]) == {name}
    without = ask(client, items=["ghost-1", "ghost-2"], k=10)
    assert len(names(without)) == 10 and not names(without, "model") and not names(without, "category")


def test_the_hour_is_that_of_the_last_event_in_any_form_that_is_read(service: Service, client: httpx.Client) -> None:
    at = datetime(2026, 3, 5, 12, 30, tzinfo=UTC)
    wanted = names(ask(client, items=[], asked_at=at.isoformat(), k=100), "hour")
    for written in (
        int(at.timestamp()),
        str(int(at.timestamp() * 1000)),
        "2026-03-05 12:30:00",
        "2026-03-05T14:30:00+02:00",
    ):
        answer = ask(client, events=[{"item_id": "ghost-1", "timestamp": written}], k=100)
        assert wanted and names(answer, "hour") == wanted, written
    service.models.loaded = replace(service.models.loaded, log_form=log_of(_with_times("%d.%m.%Y %H:%M")))
    try:
        answer = ask(client, events=[{"item_id": "ghost-1", "timestamp": "05.03.2026 12:30"}], k=100)
    finally:
        service.models.loaded = replace(service.models.loaded, log_form=Log())
    assert names(answer, "hour") == wanted


def _with_times(form: str) -> Dataset:
    demo = read_dataset("demo").model_dump(mode="json", exclude_defaults=True)
    return Dataset.model_validate(demo | {"events": demo["events"] | {"time_format": form}})


def test_the_terminal_and_bulk_answer_unknown_items_as_the_service_does(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    place, said = service.place, list[str]()
    assert place is not None
    vocabulary = pl.read_parquet(place.folder / "vocabularies/category.parquet")
    event = {"item_id": "ghost-1", "category": vocabulary["value"][-1], "timestamp": "2026-03-05T12:30:00Z"}
    known = sorted(in_training(service))[0]
    events = pl.DataFrame([{"user_id": "a"} | event, {"user_id": "b"} | event | {"item_id": known}])
    answer = ask(client, events=[event], k=12, hide_seen=True)
    done = recommend(place.folder, events[:1], 12, recent=place.recent, say=said.append)
    assert done["recommended"] == names(answer) and done["popular"] and not names(answer, "model")
    assert POPULAR in said
    everything = ask(client, items=["ghost-1", "ghost-2"], k=500)
    done = recommend(place.folder, ["ghost-1", "ghost-2"], 500, recent=place.recent, say=said.append)
    assert set(done["recommended"]) == set(names(everything)) and len(done["recommended"]) == len(names(everything))
    events.write_parquet(tmp_path / "events.parquet")
    bulk = recommend_all(
        place.folder, tmp_path / "events.parquet", tmp_path / "out", 12, recent=place.recent, say=said.append
    )
    lists = pl.read_parquet(tmp_path / "out" / "lists.parquet")
    for user, rows in (("a", events[:1]), ("b", events[1:])):
        mine = lists.filter(pl.col("user_id") == user)
        assert (
            mine["item"].to_list()
            == recommend(place.folder, rows, 12, recent=place.recent, say=said.append)["recommended"]
        )
        assert mine["score"].is_null().all() == (user == "a") and not mine["score"].is_nan().any()
    assert bulk["popular"] == 1 and any("1 histories hold no item of the model" in line for line in said)


def test_one_known_item_is_enough_for_the_model(service: Service, client: httpx.Client) -> None:
    known = sorted(in_training(service))[:2]
    answer = ask(client, items=[*known, "ghost-1"], k=10)
    assert (
        names(answer, "model") == names(answer) and len(names(answer)) == 10 and answer["unknown_items"] == ["ghost-1"]
    )


def test_what_rules_refuse_is_in_no_source(service: Service, tmp_path: Path) -> None:
    place = service.place
    assert place is not None
    allowed = sorted(in_training(service))[:5]
    rules = [Rules(pl.DataFrame({"item": allowed[:4]}), unlisted=False)]
    ruled = Service(lambda: replace(place), read_rules=lambda: rules.pop() if rules else None)
    ruled.models.load()
    with serving(ruled) as client:
        assert set(names(ask(client, items=[], k=20))) == set(allowed[:4])
        assert set(names(ask(client, items=allowed[:1], k=20, hide_seen=True))) == set(allowed[1:4])
        items = pl.DataFrame({"item": allowed, "group": ["a"] * 5})
        rules.append(Rules(items, unlisted=False, most_per_group=2))
        assert ruled.models.refresh_rules()
        assert len(names(ask(client, items=[], k=20))) == 2
        short = ask(client, items=allowed[:1], k=20, hide_seen=True)
        assert len(names(short)) == 2 and names(short, "model") == names(short)


def test_popular_items_follow_new_sessions(service: Service, tmp_path: Path) -> None:
    """Sessions that were prepared since the model was made say what is popular, without another model."""
    place = service.place
    assert place is not None and place.recent is not None
    places = [replace(place, recent=None)]
    other = Service(lambda: places[-1])
    other.models.load()
    with serving(other) as client:
        assert {entry["source"] for entry in ask(client, items=[])["items"]} == {"popular"}
        places.append(place)
        assert not other.models.refresh() and other.place == place
        assert "popular" not in {entry["source"] for entry in ask(client, items=[])["items"]}
