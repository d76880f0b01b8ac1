"""What every body must obey, whatever its positions: no look into the future, no neighbours, no label leak."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modeling import bodies
from modeling.config import TrainingConfig
from modeling.data import Cases, Sessions, pack
from modeling.fitting import fit, make_schedule
from modeling.metrics import metrics_at
from modeling.model import SequenceModel
from modeling.ranking import ranks
from modeling.recommend import ModelScorer, make_batch
from schemas import plugins
from tests.conftest import chain_sessions, model_of, random_sessions, schema_of, sessions_of, split_of

BODIES = plugins.names(bodies)
POSITIONS = ["none", "end", "rotary", "forward"]
every_body = pytest.mark.parametrize("body", BODIES)
every_position = pytest.mark.parametrize("positions", POSITIONS)


def states(model: SequenceModel, sessions: Sessions) -> torch.Tensor:
    """Hidden states in order of events."""
    with torch.no_grad():
        event_BL, batch = make_batch(model, sessions)
        return model.encode(batch)[event_BL >= 0]


@every_body
@every_position
def test_future_items_never_change_an_output(body: str, positions: str) -> None:
    model = model_of(body, positions)
    history = [5, 9, 30, 12, 44, 7]
    whole = states(model, sessions_of([history]))
    changed = states(model, sessions_of([[*history[:3], 20, 21, 22]]))
    torch.testing.assert_close(whole[:3], changed[:3], atol=1e-5, rtol=0)
    assert not torch.allclose(whole[3:], changed[3:], atol=1e-3)


@every_body
@every_position
def test_packed_sessions_equal_separate_ones(body: str, positions: str) -> None:
    model = model_of(body, positions)
    sessions = random_sessions(40, 50)
    packed = states(model, sessions)
    alone = [states(model, sessions.select(torch.tensor([index]))) for index in range(len(sessions))]
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=0)


@every_body
def test_positions_tell_order_apart_where_asked(body: str) -> None:
    first, second = sessions_of([[5, 9, 30]]), sessions_of([[9, 5, 30]])
    for positions, differs in {"none": False, "end": True, "rotary": True, "forward": True}.items():
        model = model_of(body, positions, num_layers=1, features="none")
        last = [states(model, sessions)[-1] for sessions in (first, second)]
        assert torch.allclose(*last, atol=1e-6) is not differs, positions


@every_body
@every_position
def test_every_parameter_gets_a_finite_gradient(body: str, positions: str) -> None:
    model = model_of(body, positions, output_bias=True).train()
    schedule = make_schedule(model, random_sessions(30, 50), TrainingConfig(epochs=1, tokens_per_step=10_000))
    model(**schedule[0])["loss"].backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


@every_body
def test_saved_and_loaded_models_are_the_same(body: str, tmp_path: Path) -> None:
    model = model_of(body)
    model.save(tmp_path)
    sessions = random_sessions(5, 50)
    assert torch.equal(states(model, sessions), states(SequenceModel.load(tmp_path), sessions))


@every_body
def test_random_items_score_chance(body: str, tmp_path: Path) -> None:
    num_items = 100
    train, test = random_sessions(600, num_items), random_sessions(1500, num_items, seed=1)
    config = TrainingConfig(epochs=6, tokens_per_step=512, evaluations=2, threads=1, learning_rate=3e-3)
    settings = model_of(body, "end", num_items).settings
    model, _ = fit(schema_of(num_items), split_of(train, test), settings, config, tmp_path, lambda line: None)
    cases = split_of(train, test).test
    found = metrics_at(ranks(ModelScorer(model), cases), (20,))["recall@20"]
    assert abs(found - 20 / num_items) < 0.05, found


@every_body
def test_a_learnable_chain_is_learned(body: str, tmp_path: Path) -> None:
    num_items = 60
    train, test = chain_sessions(1500, num_items), chain_sessions(300, num_items, seed=1)
    config = TrainingConfig(epochs=12, tokens_per_step=512, evaluations=2, threads=1, learning_rate=5e-3)
    settings = model_of(body, "end", num_items, dropout=0.0).settings
    model, facts = fit(schema_of(num_items), split_of(train, test), settings, config, tmp_path, lambda line: None)
    found = metrics_at(ranks(ModelScorer(model), split_of(train, test).test), (1,))["recall@1"]
    assert found > 0.9, (found, facts)


@every_body
def test_same_seed_same_bits(body: str, tmp_path: Path) -> None:
    train = random_sessions(100, 50)
    config = TrainingConfig(epochs=2, tokens_per_step=256, evaluations=2, threads=1)
    settings = model_of(body).settings
    runs = [
        fit(schema_of(50), split_of(train, train), settings, config, tmp_path / name, lambda line: None)[0].state_dict()
        for name in ("one", "two")
    ]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_padding_is_nobody() -> None:
    """An event's row neighbours and the padding behind it leave the packing of its own session alone."""
    sessions = random_sessions(30, 50)
    event_BL, batch = pack(sessions, 16, from_end=False)
    real = event_BL >= 0
    assert real.sum() == sessions.num_events
    assert ((batch["segments"] > 0) == real).all()
    assert (batch["item_id"][~real] == 0).all()
    cases = Cases(sessions.drop_last(1), sessions.item_from_end(0))
    assert (cases.history.lengths == sessions.lengths - 1).all()
