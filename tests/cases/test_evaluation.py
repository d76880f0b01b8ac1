"""Evaluations that once went wrong, with what is right."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import safetensors.torch
import torch

from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig
from modeling.evaluation.metrics import metrics_at
from modeling.model import SequenceModel
from modeling.service.recommender import Recommender
from modeling.splits import split_sessions
from modeling.stages import compare, evaluate, train
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import FIRST_ID
from schemas.dataset import Dataset
from schemas.features import FeatureSchema

NUM_ITEMS = 30
CONFIG = EvaluationConfig(baselines=("popularity", "markov"), cutoffs=(5, 20))
TRAINING = TrainingConfig(epochs=1, tokens_per_step=256, threads=1)
MARCH = [date(2026, 3, day) for day in (4, 5)]
Night = list[list[str]]  # the sessions of a day, as items


def ring(days: int, seed: int = 1, prefix: str = "i", length: int = 5) -> list[Night]:
    """Days of 60 sessions in which an item is followed by the next on a ring of 30."""
    draw = random.Random(seed)
    starts = [[draw.randrange(NUM_ITEMS) for _ in range(60)] for _ in range(days)]
    return [
        [[f"{prefix}{(start + place) % NUM_ITEMS:02d}" for place in range(length)] for start in day] for day in starts
    ]


def shop(folder: Path, days: list[Night], **about: Any) -> Dataset:
    """A file of these sessions from 1 March on, and how it is read."""
    rows, user = ["user_id,item_id,timestamp"], 0
    for number, day in enumerate(days):
        for session in day:
            user += 1
            moment = datetime(2026, 3, 1 + number, 8) + timedelta(minutes=user % 300)
            rows += [f"u{user},{item},{(moment + timedelta(seconds=s)).isoformat()}" for s, item in enumerate(session)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    columns = {name: name for name in ("user_id", "item_id", "timestamp")}
    described = {
        "name": "ring",
        "events": {"path": "events.csv", "columns": columns},
        "sessions": {"rule": "gap", "gap_minutes": 30},
        "features": {"item_id": {"encode": "category"}},
    } | about
    return Dataset.model_validate(described).at(folder)


def trained(sessions: Manifest, **groups: Any) -> Manifest:
    config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}} | groups)
    return train(Artifacts(sessions.root), sessions, config, TRAINING, quiet)


def measured(model: Manifest, sessions: Manifest, config: EvaluationConfig = CONFIG) -> dict[str, Any]:
    return evaluate(Artifacts(sessions.root), model, sessions, config, quiet).facts


def lists(model: Manifest, sessions: Manifest, k: int, **how: bool) -> Iterator[tuple[list[str], str]]:
    """What is recommended to each test session that has a history and a known end, and what came next."""
    schema = FeatureSchema.read(sessions.folder / "schema.json")
    cases = split_sessions(sessions, schema, TRAINING.validation_sessions).test.known()
    recommender = Recommender(model.folder)
    return zip(recommender.recommend(cases.history, k, **how), recommender.raw_items(cases.target), strict=True)


def quiet(line: object) -> None:
    """No progress."""


def vectors(path: Path, alike: int) -> dict[str, Any]:
    """A model that knows items by vectors, of which the first `alike` are the same."""
    draw = random.Random(3)
    same = [draw.gauss(0, 1) for _ in range(16)]
    rows = [(f"i{i:02d}", same if i < alike else [draw.gauss(0, 1) for _ in range(16)]) for i in range(NUM_ITEMS)]
    schema = {"item_id": pl.String, "vector": pl.List(pl.Float32)}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(path)
    return {"pretrained": {"path": str(path), "replaces_id": True}}


@pytest.mark.parametrize("alike", [NUM_ITEMS, 20])
def test_a_model_that_cannot_tell_items_apart_is_not_the_best(alike: int, tmp_path: Path) -> None:
    """Its metrics were 1.0: the target's score was rounded another way than those that equal it."""
    sessions = prepare(Artifacts(tmp_path / "root"), shop(tmp_path, ring(4)), progress=quiet)
    model = trained(sessions, inputs=vectors(tmp_path / "vectors.parquet", alike))
    schema = FeatureSchema.read(sessions.folder / "schema.json")
    cases = split_sessions(sessions, schema, TRAINING.validation_sessions).test.known()
    scorer = Recommender(model.folder).scorer
    scores = scorer.queries(cases.history).double() @ scorer.items_VE.double().T
    own = scores.gather(1, cases.target[:, None] - FIRST_ID)
    rank_N = 0.5 + (scores > own + 1e-6).sum(1) + 0.5 * ((scores - own).abs() <= 1e-6).sum(1)
    expected = metrics_at(rank_N, CONFIG.cutoffs)
    assert measured(model, sessions)["metrics"]["sasrec"] == pytest.approx(expected)
    if alike == NUM_ITEMS:
        assert (rank_N == (NUM_ITEMS + 1) / 2).all() and expected["recall@5"] == 0
        by_id = pl.read_parquet(model.folder / "items.parquet")["value"].head(5).to_list()
        assert all(best == by_id for best, _ in lists(model, sessions, 5))


@pytest.mark.parametrize("filter_seen", [False, True])
def test_what_is_measured_is_what_is_recommended(filter_seen: bool, tmp_path: Path) -> None:
    """In two of three sessions the last item is the first again: with the filter that is never recommended, so it is a miss."""
    days = ring(4, length=3)
    for day in days:
        for number, session in enumerate(day):
            session.append(session[0] if number % 3 else f"i{(int(session[-1][1:]) + 1) % NUM_ITEMS:02d}")
    sessions = prepare(Artifacts(tmp_path / "root"), shop(tmp_path, days), progress=quiet)
    model, config = trained(sessions), CONFIG.model_copy(update={"filter_seen": filter_seen})
    facts = measured(model, sessions, config)
    hits = [target in best for best, target in lists(model, sessions, 20, filter_seen=filter_seen)]
    assert facts["metrics"]["sasrec"]["recall@20"] == pytest.approx(sum(hits) / len(hits))
    assert (facts["cases"], facts["seen_targets"], facts["filter_seen"]) == (60, 40, filter_seen)
    for values in facts["metrics"].values():
        assert values["recall@20"] <= (1 / 3 if filter_seen else 1)


def test_without_a_case_metrics_are_undefined_and_nothing_is_promoted(tmp_path: Path) -> None:
    """They were 0.0000."""
    days = [*ring(3), *ring(1, prefix="z")]
    artifacts = Artifacts(tmp_path / "root")
    sessions = prepare(artifacts, shop(tmp_path, days), progress=quiet)
    lines: list[str] = []
    evaluation = evaluate(artifacts, trained(sessions), sessions, CONFIG, lines.append)
    facts = json.loads((evaluation.folder / "result.json").read_text())
    assert facts == evaluation.facts and (facts["cases"], facts["unknown_targets"]) == (0, 60)
    assert {value for values in facts["metrics"].values() for value in values.values()} == {None}
    assert all("undefined" in line for line in lines) and len(lines) == 3
    decision = compare(artifacts, "ring", evaluation, sessions, PromotionConfig(), CONFIG, quiet).facts
    assert not decision["promote"]
    assert decision["reason"].startswith(
        "ndcg@20 is undefined on these test sessions: not promoted, nothing is in service."
    )
    assert "Guard unknown_share: 100.0%" in decision["reason"]


def test_sessions_of_one_event_have_no_unknown_item(tmp_path: Path) -> None:
    days = ring(4)
    days[-1] = [*days[-1][:20], *([item] for item in ("i03", "i04", "z01")), ["i01", "z02"]]
    rule = {"rule": "gap", "gap_minutes": 30, "min_length": 1}
    sessions = prepare(Artifacts(tmp_path / "root"), shop(tmp_path, days, sessions=rule), progress=quiet)
    facts = measured(trained(sessions), sessions)
    assert [facts[name] for name in ("cases", "too_short", "unknown_targets", "cold_targets")] == [20, 3, 1, 0]


@pytest.mark.parametrize("loss", ["full_softmax", {"name": "gbce", "negatives": {"source": "in_batch", "count": 8}}])
def test_items_that_are_gone_are_not_recommended(loss: object, tmp_path: Path) -> None:
    """No event of the window and no negative ever touched their vectors, which filled most of the lists."""
    days = [*ring(2, prefix="o"), *ring(4)]
    days[-1][:3] = [["i01", "i02", "o07"]] * 3
    sessions = prepare(Artifacts(tmp_path / "root"), shop(tmp_path, days), days=4, progress=quiet)
    assert (sessions.facts["first_day"], sessions.facts["items"]) == ("2026-03-03", NUM_ITEMS)
    model = trained(sessions, loss=loss)
    facts = measured(model, sessions)
    assert (facts["catalogue"], facts["vocabulary"]) == (NUM_ITEMS, 2 * NUM_ITEMS)
    assert (facts["cases"], facts["cold_targets"], facts["unknown_targets"]) == (57, 3, 0)
    assert {item[0] for best, _ in lists(model, sessions, 10**6) for item in best} == {"i"}


def test_a_model_that_learned_from_the_test_day_is_told(tmp_path: Path) -> None:
    artifacts, dataset = Artifacts(tmp_path / "root"), shop(tmp_path, ring(5))
    early, late = (prepare(artifacts, dataset, until=day, progress=quiet) for day in MARCH)
    models, config = [trained(early), trained(late)], EvaluationConfig(baselines=(), cutoffs=(20,))
    flags = [
        [measured(model, sessions, config)["learned_from_test_day"] for sessions in (early, late)] for model in models
    ]
    assert flags == [[False, False], [True, False]]
    for _ in ("measured", "there already"):
        lines: list[str] = []
        evaluate(artifacts, models[1], early, config, lines.append)
        assert [line for line in lines if "learned from what it is tested on" in line] == lines[-1:]


def test_a_model_learned_from_last_items_of_histories_that_end_before_its_own(tmp_path: Path) -> None:
    """Prepared otherwise, the same events have the same last items; later histories read those of earlier ones."""
    artifacts, made = Artifacts(tmp_path / "root"), []
    for min_length, days in ((2, 2), (3, 2), (2, 3)):
        whole = {"rule": "history", "min_length": min_length}
        dataset = shop(tmp_path / str(len(made)), ring(days), sessions=whole, split="leave_one_out")
        made.append(prepare(artifacts, dataset, progress=quiet))
    config = EvaluationConfig(baselines=(), cutoffs=(20,))
    flags = [
        [measured(trained(own), sessions, config)["learned_from_test_day"] for sessions in made]
        for own in (made[0], made[2])
    ]
    assert flags == [[False, False, False], [True, True, False]]


def test_a_model_folder_without_counts_of_items_recommends_all(tmp_path: Path) -> None:
    sessions = prepare(Artifacts(tmp_path / "root"), shop(tmp_path, ring(3)), progress=quiet)
    model = SequenceModel.load(trained(sessions).folder)
    weights = {name: value for name, value in model.state_dict().items() if not name.endswith("popularity_V")}
    model.save(tmp_path)
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    again = SequenceModel.load(tmp_path)
    assert torch.equal(again.next_item.popularity_V, torch.ones(NUM_ITEMS))
