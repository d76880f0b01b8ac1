"""What every body must obey with every objective it goes with, and every loss: nothing leaks, everything learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modeling import bodies, losses, objectives, parts
from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import ranks
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer
from modeling.sessions import Sessions
from modeling.splits import Cases
from modeling.training.fit import fit
from modeling.training.schedule import make_schedule
from schemas import plugins
from tests.conftest import chain_sessions, model_of, random_sessions, schema_of, split_of
from tests.slow import pared

names = plugins.names(bodies)
PAIRS = [
    (body, objective)
    for body in names
    for objective in plugins.names(objectives)
    if parts.goes_together(body, objective)
]
KINDS = ("sasrec", "gru4rec", "hstu", "xlnet", "mamba2", "gpt2")  # a body of each kind


def is_one_of_each(pair: tuple[str, str]) -> bool:
    """Pairs that hold every body once, each with another objective than its neighbours, and every objective several times."""
    body, _ = pair
    own = [one for one in PAIRS if one[0] == body]
    return body == "sasrec" or pair in (own[names.index(body) % len(own)], ("xlnet", "permuted"))


every_pair = pytest.mark.parametrize(("body", "objective"), PAIRS)
one_pair_of_each = pytest.mark.parametrize(("body", "objective"), pared(PAIRS, is_one_of_each))
causal_bodies = [body for body, objective in PAIRS if objective == "causal"]
# What trains: a body of each kind, and every objective. tests/laws/test_bodies.py holds every body to what this would show.
few_pairs = pytest.mark.parametrize(
    ("body", "objective"), pared(PAIRS, lambda pair: pair[0] in KINDS and is_one_of_each(pair))
)
a_body_of_each_kind = pytest.mark.parametrize("body", pared(causal_bodies, lambda body: body in KINDS))


def trained(
    config: ModelConfig, train: Sessions, num_items: int, folder: Path, **training: object
) -> tuple[SequenceModel, dict[str, object]]:
    settings = {"epochs": 6, "tokens_per_step": 512, "evaluations": 2, "threads": 1, "learning_rate": 5e-3} | training
    split = split_of(train, train)
    return fit(schema_of(num_items), split, config, TrainingConfig.model_validate(settings), folder, lambda line: None)


def recall(model: SequenceModel, cases: Cases, k: int) -> float:
    return metrics_at(ranks(ModelScorer(model), cases), (k,))[f"recall@{k}"]


@few_pairs
def test_random_items_score_chance(body: str, objective: str, tmp_path: Path) -> None:
    """A model that sees what it is asked about finds it, in training and then in the test, though nothing can be known."""
    num_items = 100
    train, test = random_sessions(400, num_items), random_sessions(1500, num_items, seed=1)
    config = model_of(body, num_items=num_items, objective=objective).settings
    model, facts = trained(config, train, num_items, tmp_path, epochs=4)
    assert abs(recall(model, split_of(train, test).test, 20) - 0.2) < 0.05
    assert facts["history"][0]["loss"] > 3  # the uniform answer costs log(100) = 4.6


@every_pair
def test_states_of_inference_do_not_depend_on_what_comes_next(body: str, objective: str) -> None:
    model = model_of(body, objective=objective)
    sessions = random_sessions(20, 50)
    other = random_sessions(20, 50)
    last = other.starts + other.lengths - 1
    other.items[last] = 3 + (other.items[last] - 3 + 17) % 50
    with torch.no_grad():
        assert torch.equal(model.states(sessions.drop_last(1)), model.states(other.drop_last(1)))


@pytest.mark.parametrize(
    ("body", "objective"),
    pared(
        (pair for pair in PAIRS if pair[1] == "causal" or pair[0] in ("sasrec", "xlnet")),
        lambda pair: pair[0] == "sasrec" or pair == ("xlnet", "permuted") or (pair[0] in KINDS and pair[1] == "causal"),
    ),
)
def test_a_learnable_chain_is_learned(body: str, objective: str, tmp_path: Path) -> None:
    """Next to the causal one, objectives predict few events of a session and take long: two bodies stand for all."""
    num_items = 20
    train, test = chain_sessions(300, num_items), chain_sessions(200, num_items, seed=1)
    often = {} if objective == "causal" else {"probability": 0.4}
    config = model_of(
        {"name": body, "dropout": 0.0}, num_items=num_items, objective={"name": objective} | often
    ).settings
    usual = {"epochs": 6, "tokens_per_step": 128} if objective == "causal" else {"epochs": 24, "tokens_per_step": 256}
    model, facts = trained(config, train, num_items, tmp_path, **usual, learning_rate=1e-2)
    enough = 0.8 if objective == "causal" else 0.5  # chance is 1/20
    assert recall(model, split_of(train, test).test, 1) > enough, facts["history"]


@pytest.mark.parametrize(
    "loss", pared(plugins.names(losses), lambda loss: loss in ("full_softmax", "sampled_softmax", "bpr_max"))
)
def test_every_loss_learns_the_chain(loss: str, tmp_path: Path) -> None:
    """One of the catalogue, one of items drawn, one of pairs; of all losses, test_bodies.py and below: they go down."""
    num_items = 40
    train, test = chain_sessions(600, num_items), chain_sessions(200, num_items, seed=1)
    config = model_of(
        {"name": "sasrec", "dropout": 0.0}, num_items=num_items, loss={"name": loss, "negatives": {"count": 16}}
    ).settings
    model, facts = trained(config, train, num_items, tmp_path, epochs=8, tokens_per_step=256, learning_rate=1e-2)
    assert recall(model, split_of(train, test).test, 1) > 0.8, facts["history"]


@every_pair
def test_every_parameter_gets_a_finite_gradient(body: str, objective: str) -> None:
    model = model_of(body, objective=objective, heads={"next_item": {"bias": True}}).train()
    batch = make_schedule(model, random_sessions(60, 50), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    model(batch).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


@every_pair
def test_saved_and_loaded_models_are_the_same(body: str, objective: str, tmp_path: Path) -> None:
    model = model_of(body, objective=objective)
    model.save(tmp_path)
    sessions = random_sessions(5, 50)
    with torch.no_grad():
        assert torch.equal(model.states(sessions), SequenceModel.load(tmp_path).states(sessions))


@few_pairs
def test_same_seed_same_bits(body: str, objective: str, tmp_path: Path) -> None:
    config = model_of(body, objective=objective).settings
    runs = [
        trained(config, random_sessions(60, 50), 50, tmp_path / name, epochs=2, tokens_per_step=256)[0].state_dict()
        for name in ("one", "two")
    ]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@every_pair
def test_bf16_states_are_near(body: str, objective: str) -> None:
    model, sessions = model_of(body, objective=objective), random_sessions(20, 50)
    with torch.no_grad():
        exact = model.states(sessions)
        with torch.autocast("cpu", torch.bfloat16):
            near = model.states(sessions).float()
    assert (near - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("body", "objective", "loss"),
    [
        (*pair, loss)
        for pair in pared(PAIRS, is_one_of_each)
        for loss in plugins.names(losses)
        if pair[0] in ("sasrec", "xlnet") or loss in ("full_softmax", "sampled_softmax")
    ],
)
def test_the_loss_goes_down(body: str, objective: str, loss: str) -> None:
    """Bodies and objectives with a loss of either kind, on one batch over and over.

    A loss reads states and items, never the body: two bodies, which go with all objectives, stand for all with the rest.
    """
    often = {} if objective == "causal" else {"probability": 0.4}  # of few predictions, negatives decide
    model = model_of(
        {"name": body, "dropout": 0.0},
        objective={"name": objective} | often,
        loss={"name": loss, "negatives": {"count": 16}},
    ).train()
    batch = make_schedule(model, chain_sessions(30, 50), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses_ = []
    for _ in range(10):
        found = model(batch)
        optimizer.zero_grad()
        found.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
        losses_.append(float(found.detach()))
    assert sum(losses_[-2:]) < 0.95 * sum(losses_[:2]), losses_
