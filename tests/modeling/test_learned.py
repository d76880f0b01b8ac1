"""Whether a model learned from what is tested on: by days, by the ends of histories, after a refit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, SplitConfig, TrainingConfig
from modeling.evaluation.pointer import put_in_service
from modeling.splits import folds
from modeling.stages import compare, evaluate, train
from modeling.stages.learned import how_it_learned, saw_later
from modeling.stages.measure import learned_from
from modeling.stages.parent import find_parent
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.errors import InputError
from tests.cases.test_evaluation import quiet, ring, shop

TRAINING = TrainingConfig(epochs=1, tokens_per_step=64, learning_rate=1e-3, threads=1)
# What follows the shape of the data would differ from one snapshot to the next.
SETTINGS = {"body": {"dim": 8, "num_layers": 1, "dropout": 0.1}, "inputs": {"item_start": "random"}}
TINY = ModelConfig.model_validate(SETTINGS | {"loss": "full_softmax"})


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """Snapshots of whole histories, of two days and of three."""
    folder, made = tmp_path_factory.mktemp("histories"), []
    for days in (2, 3):
        dataset = shop(folder / str(days), ring(days), sessions={"rule": "history"}, split="leave_one_out")
        made.append(prepare(Artifacts(folder / "root"), dataset, progress=quiet))
    return made


def trained(sessions: Manifest, config: TrainingConfig = TRAINING, **about: Any) -> Manifest:
    return train(Artifacts(sessions.root), sessions, TINY, config, quiet, **about)


def test_a_start_from_a_model_of_later_histories_is_refused(histories: list[Manifest]) -> None:
    early, late = map(trained, histories)
    artifacts = Artifacts(histories[0].root)
    start = TRAINING.model_copy(update={"start_from": late.name})
    with pytest.raises(
        InputError, match=r"its histories go on after these \(until 2026-03-03T.*Name a model of an earlier"
    ):
        find_parent(artifacts, histories[0], start, None)
    forward = find_parent(artifacts, histories[1], TRAINING.model_copy(update={"start_from": early.name}), None)
    assert forward and forward.name == early.name
    assert (
        trained(histories[1], TRAINING.model_copy(update={"start_from": early.name})).facts["start_from"] == early.name
    )


def test_a_champion_of_later_histories_is_passed_over(histories: list[Manifest]) -> None:
    early, late = map(trained, histories)
    artifacts, champion = Artifacts(histories[0].root), TRAINING.model_copy(update={"start_from": "champion"})
    put_in_service(artifacts, "ring", late.name, by="promote")
    lines: list[str] = []
    assert find_parent(artifacts, histories[0], champion, None, lines.append) is None
    assert "from scratch: no model was in service before" in lines[-1]
    put_in_service(artifacts, "ring", early.name, by="promote")
    parent = find_parent(artifacts, histories[1], champion, None)
    assert parent and parent.name == early.name, "the newest that may be"


def test_without_times_the_number_of_events_tells(histories: list[Manifest]) -> None:
    model = trained(histories[0])
    until = model.facts["until"]
    assert until["events"] == histories[0].facts["events"]

    def of(**changes: Any) -> Manifest:
        return model.model_copy(update={"facts": model.facts | {"until": until | changes}})

    assert saw_later(of(newest_event=None), histories[0]) is False
    assert saw_later(of(newest_event=None, events=until["events"] + 1), histories[0]) is True
    assert saw_later(of(newest_event="2026-02-01T00:00:00", events=10**9), histories[0]) is False, (
        "retention took old events"
    )
    assert saw_later(of(events=until["events"] + 1), histories[0]) is True, "the same end, but events that are not here"


def test_an_older_folder_that_does_not_say_is_refused(histories: list[Manifest]) -> None:
    model = trained(histories[0])
    old = model.model_copy(update={"facts": {key: value for key, value in model.facts.items() if key != "until"}})
    assert saw_later(old, histories[1]) is None
    assert "does not say until when" in how_it_learned(old, histories[1], None)


def test_a_refit_learned_from_what_it_was_tested_on(histories: list[Manifest]) -> None:
    model = trained(histories[0])
    refitted = model.model_copy(update={"facts": model.facts | {"refit_of": "models/1"}})
    assert learned_from(refitted, folds(histories[0])[0]) and not learned_from(model, folds(histories[0])[0])
    assert not learned_from(refitted, folds(histories[1])[0]), "histories that have grown since have other last items"


def test_by_days_and_by_last_items_do_not_mix(tmp_path: Path) -> None:
    sessions = prepare(Artifacts(tmp_path / "root"), shop(tmp_path, ring(4)), progress=quiet)
    by_day, by_items = trained(sessions), trained(sessions, split=SplitConfig(rule="leave_one_out"))
    assert by_items.facts["test_day"] is None and by_day.name != by_items.name
    assert how_it_learned(by_day, sessions, "2026-03-04") == ""
    assert "learned from the days before 2026-03-04, and so from 2026-03-03" in how_it_learned(
        by_day, sessions, "2026-03-03"
    )
    assert "all days before 2026-03-04, and last items of sessions are tested" in how_it_learned(by_day, sessions, None)
    assert "sessions of all days, and 2026-03-04 is tested" in how_it_learned(by_items, sessions, "2026-03-04")
    with pytest.raises(InputError, match="sessions of all days"):
        trained(sessions, TRAINING.model_copy(update={"start_from": by_items.name}))


def test_a_past_snapshot_of_histories_does_not_unseat_a_later_model(histories: list[Manifest]) -> None:
    early, late = map(trained, histories)
    artifacts, config = Artifacts(histories[0].root), EvaluationConfig(baselines=(), lists=0, cutoffs=(20,))
    put_in_service(artifacts, "ring", late.name, by="promote")
    measured = evaluate(artifacts, early, histories[0], config, quiet)
    comparison = compare(artifacts, "ring", measured, histories[0], PromotionConfig(), config, quiet)
    assert not comparison.facts["promote"]
    assert "learned from histories that go on after these, and cannot be compared on them" in comparison.facts["reason"]
