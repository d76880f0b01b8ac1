"""Which weights decay: the matrices of layers, whatever body, head or input they belong to, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modeling.config import TrainingConfig
from modeling.model import SequenceModel
from modeling.training.optimizer import make_optimizer
from tests.conftest import model_of
from tests.laws.test_models import every_pair
from tests.modeling import test_inputs as wide
from tests.modeling.test_heads import HEADS, SCHEMA, model_with
from tests.modeling.test_items import write_vectors

CONFIG = TrainingConfig(learning_rate=1e-3, weight_decay=0.5)
MULTIPLIED = {"Linear", "Line", "Conv1D", "Conv1d", "GRU", "LSTM"}  # layers whose weights are matrices
RAW = {f"XLNetRelativeAttention.{name}" for name in "qkvor"}  # matrices that are parameters of a larger module


def shrinking(model: SequenceModel) -> set[str]:
    """The parameters that a step without any gradient makes smaller; they all shrink by lr * weight_decay."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    make_optimizer(model, CONFIG).step()
    for parameter in model.parameters():
        assert (parameter == parameter.flatten()[0]).all()
    shrunk = {name: float(value.detach().flatten()[0]) for name, value in model.named_parameters()}
    assert all(value in (1.0, pytest.approx(1 - 5e-4)) for value in shrunk.values())
    return {name for name, value in shrunk.items() if value != 1.0}


def matrices(model: SequenceModel) -> set[str]:
    names = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = type(module).__name__
            is_weight = kind in MULTIPLIED and "bias" not in name
            if parameter.requires_grad and (is_weight or f"{kind}.{name}" in RAW):
                names.add(f"{path}.{name}")
    return names


@every_pair
def test_every_body_and_objective(body: str, objective: str) -> None:
    model = model_of(body, objective=objective)
    assert shrinking(model) == matrices(model)
    assert any(name.startswith("body.") for name in shrinking(model))


@pytest.mark.parametrize(
    "inputs",
    [
        {"aggregation": "concat", "continuous": "soft_one_hot", "feature_norm": True},
        {"aggregation": "sum_times_item", "item_tower": "sum", "item_dim": 12},
        {"item_tower": "concat", "pretrained": {"trained": True}, "positions": "forward"},
        {"pretrained": {"replaces_id": True}},
    ],
    ids=str,
)
def test_every_input(inputs: dict[str, Any], tmp_path: Path) -> None:
    if "pretrained" in inputs:
        write_vectors(tmp_path / "v.parquet")
        inputs = inputs | {"pretrained": {"path": str(tmp_path / "v.parquet")} | inputs["pretrained"]}
    model = wide.model_of(inputs, heads={"next_item": {"table": "separate", "bias": True}})
    shrunk = shrinking(model)
    assert shrunk == matrices(model)
    tables = {"inputs.items.table_VE", "heads.next_item.items_VE", "inputs.items.pretrained.vectors_VP"}
    assert not shrunk & tables


def test_every_head() -> None:
    model = model_with(SCHEMA, HEADS | {"next_item": {"bias": True}})
    assert {name for name in shrinking(model) if name.startswith("heads.")} == {
        "heads.own.decide.weight",
        "heads.past.decide.weight",
    }


def test_a_parameter_can_say_that_it_does_not_decay() -> None:
    model = model_of("sasrec")
    weight = model.body.blocks[0].wide.weight  # type: ignore[index,union-attr]
    weight._no_weight_decay = True
    shrunk = shrinking(model)
    assert "body.blocks.0.narrow.weight" in shrunk and "body.blocks.0.wide.weight" not in shrunk


def test_a_table_shared_with_a_layer_does_not_decay() -> None:
    model = model_of("sasrec")
    layer = nn.Linear(16, 53, bias=False)
    layer.weight = model.inputs.items.table_VE
    model.body.tied = layer
    assert "inputs.items.table_VE" not in shrinking(model)
