"""Scores of the next-item head: products or cosines, tables, bias; the same in training and in ranking."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from modeling.config import TrainingConfig
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer
from modeling.training.schedule import make_schedule
from schemas.columns import FIRST_ID
from tests.conftest import asking, model_of, random_sessions

NUM_ITEMS = 50


def head_of(loss: str = "full_softmax", item_dim: int | None = None, **head: object) -> SequenceModel:
    model = model_of("sasrec", num_items=NUM_ITEMS, loss=loss, heads={"next_item": head}, inputs={"item_dim": item_dim})
    if model.next_item.bias_V is not None:
        torch.nn.init.normal_(model.next_item.bias_V)
    return model


def ranked_scores(model: SequenceModel) -> torch.Tensor:
    """What ranking sees of every item after each of some histories."""
    scorer = ModelScorer(model)
    with torch.no_grad():
        return scorer.tile(scorer.queries(random_sessions(20, NUM_ITEMS)), 0, NUM_ITEMS)


@pytest.mark.parametrize("table", ["shared", "separate"])
@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_cosine_scores_are_cosines_over_the_temperature(table: str, temperature: float) -> None:
    model = head_of(table=table, cosine=True, temperature=temperature)
    own = model.next_item.items_VE
    items_VE = model.inputs.items.table_VE[FIRST_ID:] if own is None else own
    with torch.no_grad():
        h_SD = model.states(random_sessions(20, NUM_ITEMS))
        expected = F.cosine_similarity(h_SD.unsqueeze(1), items_VE.unsqueeze(0), dim=-1) / temperature
    torch.testing.assert_close(ranked_scores(model), expected, atol=1e-4, rtol=1e-4)


def test_products_are_divided_by_the_temperature_and_the_bias_is_not() -> None:
    plain, warm, biased = head_of(), head_of(temperature=4.0), head_of(temperature=4.0, bias=True)
    torch.testing.assert_close(ranked_scores(warm), ranked_scores(plain) / 4)
    torch.testing.assert_close(ranked_scores(biased), ranked_scores(plain) / 4 + biased.next_item.bias_V)


@pytest.mark.parametrize(
    "head",
    [{}, {"bias": True}, {"table": "separate"}, {"cosine": True, "temperature": 0.1}, {"item_dim": 7, "cosine": True}],
)
def test_the_full_softmax_is_trained_on_the_scores_that_rank(head: dict[str, object]) -> None:
    model = head_of(**head)
    batch = make_schedule(model, random_sessions(30, NUM_ITEMS), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    with torch.no_grad():
        h_BLD = model.encode(batch)
        score_NV = model.next_item.query(batch.states(h_BLD)) @ ModelScorer(model).items_VE.T
        if model.next_item.bias_V is not None:
            score_NV = score_NV + model.next_item.bias_V
        found = model.next_item.loss(h_BLD, batch, model.inputs.items)
    torch.testing.assert_close(found, F.cross_entropy(score_NV, batch.target_N - FIRST_ID))


@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax"])
def test_where_nothing_is_asked_the_loss_is_zero_with_a_gradient(loss: str) -> None:
    model = head_of(loss=loss)
    h_BLD = torch.randn(2, 3, 16, requires_grad=True)
    found = model.next_item.loss(h_BLD, asking(torch.tensor([0, 1, 2, 0, 0, 0])), model.inputs.items)
    found.backward()
    assert found == 0 and (h_BLD.grad == 0).all()


def test_a_separate_table_is_not_the_one_that_is_read() -> None:
    shared, separate = head_of(), head_of(table="separate")
    batch = make_schedule(shared, random_sessions(30, NUM_ITEMS), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    only = {"item_id": torch.where(batch.layout.inside_BL, 4, 0)}  # one item is read
    batch = replace(batch, features=batch.features | only)
    gradients = []
    for model in (shared, separate):
        model(batch).backward()
        gradients.append((model.inputs.items.table_VE.grad[FIRST_ID:].abs().sum(1) > 0).sum())
    assert gradients == [NUM_ITEMS, 1]
    assert separate.next_item.items_VE.grad.abs().sum(1).all()


@pytest.mark.parametrize("head", [{}, {"bias": True}, {"table": "separate"}, {"cosine": True, "temperature": 0.1}])
def test_where_few_items_are_trained_the_softmax_is_over_these_alone(head: dict[str, object]) -> None:
    """The loss and its gradients are those of a softmax in which the scores of all other items are minus infinity."""
    model = head_of(**head)
    sessions = random_sessions(30, 20)  # of 50 items, the first 20 alone
    model.next_item.popularity_V.copy_(sessions.item_counts(NUM_ITEMS))
    trained_U = model.next_item.popularity_V.nonzero().squeeze(1)
    model.next_item.uniform_U = trained_U
    batch = make_schedule(model, sessions, TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    table = model.next_item.items_VE if model.next_item.items_VE is not None else model.inputs.items.table_VE

    h_BLD = torch.randn(*batch.layout.inside_BL.shape, model.settings.body.dim)
    loss = model.next_item.loss(h_BLD, batch, model.inputs.items)
    (gradient,) = torch.autograd.grad(loss, table)

    scores_NV = model.next_item.query(batch.states(h_BLD)) @ model.next_item.catalogue(model.inputs.items).T
    if model.next_item.bias_V is not None:
        scores_NV = scores_NV + model.next_item.bias_V
    hidden_V = torch.ones(NUM_ITEMS, dtype=torch.bool)
    hidden_V[trained_U] = False
    expected = F.cross_entropy(scores_NV.masked_fill(hidden_V, -torch.inf), batch.target_N - FIRST_ID)
    (of_expected,) = torch.autograd.grad(expected, table)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, of_expected, atol=1e-6, rtol=1e-4)
