"""The parts of a batch that processes share are the batch: losses and gradients of all parts add up to those of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from modeling import bodies, losses, objectives, parts
from modeling.batches import Batch, Shape
from modeling.config import TrainingConfig
from modeling.model import SequenceModel
from modeling.training.division import part_of
from modeling.training.fit import set_popularity
from modeling.training.schedule import make_schedule
from schemas import plugins
from schemas.columns import FIRST_ID
from tests.conftest import model_of, random_sessions
from tests.laws.test_flat_rows import FLAT, both_batches, long_sessions
from tests.modeling.test_heads import coin_sessions, model_with, schema_with
from tests.second_device import pretended_cuda

TOGETHER = [
    (body, objective)
    for body in plugins.names(bodies)
    for objective in plugins.names(objectives)
    if parts.goes_together(body, objective)
]
ONE_EACH = [next(pair for pair in TOGETHER if pair[1] == objective) for objective in plugins.names(objectives)]
CONFIG = TrainingConfig(epochs=1, tokens_per_step=300)
every_number = pytest.mark.parametrize("count", [2, 3, 12])  # of processes, the last more than there are rows


def gradients(model: SequenceModel, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(batch)
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_parts_add_up(model: SequenceModel, batch: Batch, count: int) -> None:
    assert count < 4 or count > len(batch.layout.segments_BL)
    state = torch.get_rng_state()
    whole, gradient = gradients(model, batch)
    after = torch.get_rng_state()
    total, summed = torch.zeros(()), {name: torch.zeros_like(value) for name, value in gradient.items()}
    for rank in range(count):
        draws = torch.Generator().set_state(state)
        loss, of_part = gradients(model, part_of(batch, rank, count, draws))
        assert torch.equal(draws.get_state(), after), "all processes draw as many numbers as one"
        total += loss
        summed = {name: value + of_part[name] for name, value in summed.items()}
    torch.testing.assert_close(total, whole, atol=1e-5, rtol=1e-5)
    for name, value in gradient.items():
        torch.testing.assert_close(
            summed[name], value, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def training_model(body: str, **groups: Any) -> SequenceModel:
    """In training mode, where ids are forgotten, but without dropout, which each process draws for itself."""
    model = model_of({"name": body, "dropout": 0.0}, **groups).train()
    if model.settings.objective.name == "replaced_token":  # each process draws its proposals for itself
        model.propose = lambda h_ND: torch.full(h_ND.shape[:1], FIRST_ID)  # type: ignore[method-assign]
    return model


@every_number
@pytest.mark.parametrize(("body", "objective"), ONE_EACH)
def test_of_every_objective(body: str, objective: str, count: int) -> None:
    model = training_model(body, objective=objective)
    assert_parts_add_up(model, make_schedule(model, random_sessions(150, 50), CONFIG)[0], count)


@pytest.mark.parametrize(("body", "objective"), [pair for pair in TOGETHER if pair[1] == "causal"])
def test_of_every_body(body: str, objective: str) -> None:
    model = training_model(body, objective=objective)
    assert_parts_add_up(model, make_schedule(model, random_sessions(150, 50), CONFIG)[0], 2)


@every_number
@pytest.mark.parametrize("source", ["uniform", "popularity", "in_batch"])
@pytest.mark.parametrize("loss", plugins.names(losses))
def test_of_every_loss(loss: str, source: str, count: int) -> None:
    negatives = {"source": source, "count": 9, "group": 7, "corrected": loss == "sampled_softmax"}
    model = training_model("sasrec", loss={"name": loss, "negatives": negatives}, heads={"next_item": {"bias": True}})
    sessions = random_sessions(150, 50)
    set_popularity(model.next_item, sessions, sessions)
    assert_parts_add_up(model, make_schedule(model, sessions, CONFIG)[0], count)


@every_number
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_of_labels_that_only_some_predictions_have(objective: str, count: int) -> None:
    heads = {"next_item": {}, "last": "binary", "own": {"name": "regression", "weight": 3.0}}
    model = model_with(schema_with(("last",), ("own",)), heads, objective).train()
    sessions = coin_sessions(150, 0)
    sessions.event_labels["own"][::3] = torch.nan
    sessions.labels["last"][10:] = torch.nan
    assert_parts_add_up(model, make_schedule(model, sessions, CONFIG)[0], count)


@pytest.mark.parametrize(("body", "objective"), FLAT)
def test_of_a_flat_row(body: str, objective: str, count: int = 3) -> None:
    """A GPU's: each process draws for itself, so of the model in evaluation mode."""
    model = training_model(body, objective=objective).eval()
    _, batch = both_batches(model, long_sessions())
    whole, gradient = gradients(model, batch)
    divided = [part_of(batch, rank, count) for rank in range(count)]
    shapes = {tuple(tensor.shape for tensor in part.tensors()) for part in divided}
    assert len(shapes) <= 2, "a process has parts of one shape for all batches"
    results = [gradients(model, part) for part in divided]
    torch.testing.assert_close(sum(loss for loss, _ in results), whole, atol=1e-5, rtol=1e-5)
    for name, value in gradient.items():
        summed = torch.stack([of_part[name] for _, of_part in results]).sum(0)
        torch.testing.assert_close(summed, value, atol=2e-5, rtol=1e-4)


def test_the_parts_of_a_flat_row_hold_each_session_whole_and_once() -> None:
    model, sessions = model_of("sasrec"), long_sessions(60)
    shape = Shape(sessions.num_events + 100, int(sessions.lengths.max()), flat=True)
    batch = model.training_batch(sessions, torch.Generator(), shape)
    held = []
    for rank in range(3):
        layout = part_of(batch, rank, 3).layout
        held.append(layout.segments_BL[layout.inside_BL].unique(return_counts=True))
    numbers, counts = torch.cat([number for number, _ in held]), torch.cat([count for _, count in held])
    assert torch.equal(numbers, torch.arange(1, 1 + len(sessions)))
    assert torch.equal(counts, sessions.lengths - 1)


def test_a_batch_of_one_process_is_no_part() -> None:
    model = model_of("sasrec")
    assert make_schedule(model, random_sessions(20, 50), CONFIG)[0].part is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts are taken on the pretended device")
@pytest.mark.parametrize(("body", "objective"), [("sasrec", "causal"), ("gru4rec", "causal"), ("bert4rec", "masked")])
def test_parts_ask_a_gpu_for_nothing(body: str, objective: str) -> None:
    with pretended_cuda() as device:
        model = model_of(body, objective=objective, loss="sampled_softmax").to("cuda").train()
        schedule = make_schedule(model, random_sessions(150, 50).to("cuda"), CONFIG)
        for rank in range(3):
            batch = schedule[rank % 2]
            device.reads.clear()
            device.uploads = 0
            model(part_of(batch, rank, 3)).backward()
            assert (device.reads.total(), device.uploads) == (0, 0)
