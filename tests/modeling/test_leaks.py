"""What is asked about is read nowhere before: in no past, in no vector that an item begins with, in no run that chooses."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from modeling.config import EvaluationConfig, Goal, ModelConfig, SplitConfig, TrainingConfig
from modeling.sessions import Sessions
from modeling.splits import folds
from modeling.stages import evaluate, train
from modeling.training import held_out
from modeling.training.fit import fit
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import FIRST_ID
from schemas.dataset import read_dataset

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, USERS, VISITS, LENGTH = 5, 12, 3, 4
QUICK = TrainingConfig(epochs=2, tokens_per_step=64, threads=1, validation_sessions=5)


def prepared_at(folder: Path) -> Manifest:
    """Each user comes three times a day, an hour apart; user and day say when. Every event is of an item of its own."""
    rows = [
        (
            f"u{user}",
            f"i{day}.{user:02}.{visit}.{step}",
            START + timedelta(days=day, hours=visit * 2, minutes=user + step),
        )
        for day in range(DAYS)
        for user in range(USERS)
        for visit in range(VISITS)
        for step in range(LENGTH)
    ]
    folder.mkdir(parents=True)
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(
        folder / "events.parquet"
    )
    (folder / "shop.yaml").write_text(
        "name: shop\nevents: {path: events.parquet, columns: {user_id: user_id, item_id: item_id, timestamp: timestamp}}\n"
        "sessions: {rule: gap, gap_minutes: 30}\n"
    )
    dataset = read_dataset(str(folder / "shop.yaml")).at(folder)
    return prepare(Artifacts(folder / "root"), dataset, progress=lambda line: None)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return prepared_at(tmp_path_factory.mktemp("leaks") / "shop")


def own(sessions: Sessions) -> list[list[int]]:
    """Events of each session itself."""
    session_E, event_E = sessions.event_index()
    return [event_E[session_E == number].tolist() for number in range(len(sessions))]


def past_of(sessions: Sessions) -> list[list[int]]:
    assert sessions.past is not None
    session_P, event_P = sessions.past.index()
    return [event_P[session_P == number].tolist() for number in range(len(sessions))]


def every(lists: list[list[int]]) -> set[int]:
    return {event for events in lists for event in events}


def items_of(sessions: Sessions, events: Iterable[int]) -> set[int]:
    """Items of events; of those that came up on the test day, which have no vector, none."""
    return {item for item in sessions.items[sorted(events)].tolist() if item >= FIRST_ID}


RULES = [{}, {"test_days": 2}, {"until": "2026-01-04"}, {"train_days": 2}, {"rule": "leave_one_out"}]


@pytest.mark.parametrize("given", RULES)
def test_the_past_of_a_case_is_what_its_user_did_before(shop: Manifest, given: dict[str, Any]) -> None:
    [fold] = folds(shop, SplitConfig.model_validate(given), past=100)
    split = fold.read(5)
    for cases in (split.test, split.validation):
        history = cases.history
        for number, (read, events) in enumerate(zip(past_of(history), own(history), strict=True)):
            asked = int(history.starts[number] + history.lengths[number])
            assert asked not in read and not set(events) & set(read)
            assert int(cases.target[number]) not in items_of(history, read)
    assert sum(map(len, past_of(split.test.history)))


@pytest.mark.parametrize("given", RULES)
def test_training_reads_no_event_that_is_asked_about(shop: Manifest, given: dict[str, Any]) -> None:
    [fold] = folds(shop, SplitConfig.model_validate(given), past=100)
    split = fold.read(5)
    read = every(own(split.train) + past_of(split.train))
    items = items_of(split.train, read)
    for cases in (split.test, split.validation):
        assert not set(cases.target.tolist()) & items
    assert sum(map(len, past_of(split.train)))


def test_no_validation_reads_what_is_tested(shop: Manifest) -> None:
    [fold] = folds(shop, SplitConfig(rule="leave_one_out"), past=100)
    split = fold.read(5)
    read = every(past_of(split.validation.history))
    assert read and not set(split.test.target.tolist()) & items_of(split.train, read)


@pytest.mark.parametrize("given", [*RULES, {"rule": "day", "test_days": 1}])
def test_items_that_training_does_not_hold_begin_as_they_would(
    shop: Manifest, given: dict[str, Any], tmp_path: Path
) -> None:
    [fold] = folds(shop, SplitConfig.model_validate(given))
    split = fold.read(5)
    tables = {}
    for start in ("random", "neighbours"):
        model, _ = fit(
            fold.schema,
            split,
            ModelConfig.model_validate({"body": {"dim": 8, "num_layers": 1}, "inputs": {"item_start": start}}),
            QUICK.model_copy(update={"epochs": 1, "learning_rate": 1e-30}),
            tmp_path / start,
            lambda line: None,
        )
        tables[start] = model.inputs.items.table_VE.detach()
    same = (tables["random"] - tables["neighbours"]).abs().amax(1) < 1e-6
    trained = torch.zeros(len(same), dtype=torch.bool)
    trained[split.train.items[split.train.event_index()[1]].long()] = True
    assert same[~trained].all(), "only what training holds is counted"
    assert not same[FIRST_ID:][trained[FIRST_ID:]].all()


@pytest.mark.parametrize("past", [0, 100])
@pytest.mark.parametrize("days", [1, 2])
@pytest.mark.parametrize("recent", [None, 1])
def test_days_that_choose_are_not_trained_on_before(
    shop: Manifest, past: int, days: int, recent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [fold] = folds(shop, SplitConfig(), past)
    runs = []

    def watched(schema: Any, split: Any, *rest: Any, **named: Any) -> Any:
        runs.append(split)
        return fit(schema, split, *rest, **named)

    monkeypatch.setattr(held_out, "fit", watched)
    config = QUICK.model_copy(update={"validation": "days", "validation_days": days, "recent_days": recent})
    model = ModelConfig.model_validate({"body": {"dim": 8, "num_layers": 1}, "inputs": {"past_events": past}})
    held_out.fit_with_newest_days(fold, model, config, tmp_path, lambda line: None, pl.DataFrame(), Goal())
    first = runs[0]
    assert set(fold.train_days[-days:]) == days_of(first.validation.history)
    assert days_of(first.train) == set(fold.train_days[:-days]) and days_of(first.last_day) <= days_of(first.train)
    if past:
        assert not every(past_of(first.train)) & every(own(first.validation.history))


def days_of(sessions: Sessions) -> set[str]:
    return {str(datetime.fromtimestamp(end / 1e6, UTC).date()) for end in sessions.end.tolist()}


def test_models_with_pasts_train_and_are_measured_on_last_items(shop: Manifest, tmp_path: Path) -> None:
    artifacts, split = Artifacts(tmp_path), SplitConfig(rule="leave_one_out")
    model = ModelConfig.model_validate({"body": {"dim": 8, "num_layers": 1}, "inputs": {"past_events": 6}})
    trained = train(artifacts, shop, model, QUICK, lambda line: None, split)
    evaluation = evaluate(artifacts, trained, shop, EvaluationConfig(baselines=(), split=split), lambda line: None)
    assert evaluation.facts["learned_from_test_day"] is False
