"""Items, categories and times in a history that training never saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import ranks
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer
from modeling.sessions import Sessions
from modeling.splits import Cases, hide_last
from modeling.training.fit import fit
from schemas.columns import FIRST_ID, ITEM_ID, NULL, UNKNOWN
from schemas.features import FeatureSchema
from tests.conftest import chain_sessions, schema_of, split_of

NUM_ITEMS = 40


def fitted(folder: Path, features: list[str], train: Sessions, schema: FeatureSchema | None = None) -> SequenceModel:
    config = ModelConfig.model_validate({"body": {"dim": 32, "dropout": 0.0}, "inputs": {"features": features}})
    settings = TrainingConfig(epochs=12, tokens_per_step=256, evaluations=2, learning_rate=5e-3, threads=1)
    split = split_of(train, train.select(torch.arange(50)))
    return fit(schema or schema_of(NUM_ITEMS), split, config, settings, folder, lambda line: None)[0]


def recall(model: SequenceModel, cases: Cases) -> float:
    return metrics_at(ranks(ModelScorer(model), cases), (5,))["recall@5"]


def with_one_more(cases: Cases, item: int) -> Cases:
    """The same cases, whose histories end in one more event of that item."""
    history = cases.history
    session_E, event_E = history.event_index()
    events = {}
    for name, values in history.events.items():
        room = values.new_full((len(event_E) + len(history),), float(values[0]))
        room[torch.arange(len(event_E)) + session_E] = values[event_E]
        events[name] = room
    lengths = history.lengths + 1
    starts = lengths.cumsum(0) - lengths
    events[ITEM_ID][starts + lengths - 1] = item
    return Cases(replace(history, events=events, starts=starts, lengths=lengths), cases.target)


@pytest.mark.parametrize("item", [UNKNOWN, FIRST_ID + NUM_ITEMS])
def test_an_item_that_training_never_saw_does_no_harm(item: int, tmp_path: Path) -> None:
    """Not worse than leaving it out: one that is in no vocabulary, or in that of another day alone."""
    schema = schema_of(NUM_ITEMS + 1)
    model = fitted(tmp_path, [], chain_sessions(600, NUM_ITEMS), schema)
    cases = hide_last(chain_sessions(200, NUM_ITEMS, seed=1))
    left_out = recall(model, cases)
    assert left_out > 0.9 and recall(model, with_one_more(cases, item)) >= left_out


@pytest.mark.parametrize("kind", [NULL, UNKNOWN, FIRST_ID + 4])
def test_a_category_that_training_never_saw_is_read_as_unknown(kind: int, tmp_path: Path) -> None:
    """Null, unknown and a value without a training event say the same, and the items still say what comes next."""
    train = chain_sessions(600, NUM_ITEMS)
    train.events["type"][:] = train.items % 4 + FIRST_ID
    model = fitted(tmp_path, ["type"], train)
    cases = hide_last(chain_sessions(200, NUM_ITEMS, seed=1))
    found = []
    for value in (UNKNOWN, kind):
        cases.history.events["type"][:] = value
        found.append(ranks(ModelScorer(model), cases))
    assert torch.equal(found[0], found[1])
    assert float((found[1] <= 5).float().mean()) > 0.8
