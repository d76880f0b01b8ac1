"""Gradients that hold only the rows read, and the optimizer that takes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modeling.config import ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.training import optimizer
from modeling.training.fit import fit
from modeling.training.optimizer import RowAdamW, use_sparse_gradients
from modeling.training.schedule import make_schedule
from tests.conftest import model_of, random_sessions, schema_of, split_of
from tests.modeling.training.test_fit import Interrupt

SAMPLED = {"name": "sampled_softmax", "negatives": {"count": 8}}
CONFIG = TrainingConfig(epochs=4, tokens_per_step=128, evaluations=4, patience=10, threads=1, order="random")


@pytest.fixture
def always_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(optimizer.SPARSE_FROM, "cpu", 1)


def test_rows_move_as_with_sparse_adam_and_the_rest_as_with_adamw() -> None:
    torch.manual_seed(0)
    table, weight = torch.randn(40, 4), torch.randn(4, 3)
    ours, theirs = ([nn.Parameter(one.clone()) for one in (table, weight)] for _ in range(2))
    settings = {"lr": 0.05, "betas": (0.9, 0.98)}
    one = RowAdamW([{"params": ours, "weight_decay": 0.3}], **settings)
    others = [
        torch.optim.SparseAdam(theirs[:1], **settings),
        torch.optim.AdamW(theirs[1:], weight_decay=0.3, **settings),
    ]
    for _ in range(6):
        ids = torch.randint(0, 30, (16,))  # repeated, and the last ten rows never
        for parameters in (ours, theirs):
            (F.embedding(ids, parameters[0], sparse=True) @ parameters[1]).square().sum().backward()
        assert ours[0].grad is not None and ours[0].grad.is_sparse
        one.step()
        one.zero_grad()
        for other in others:
            other.step()
            other.zero_grad()
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])
    assert torch.equal(ours[0][30:], table[30:])
    assert not torch.equal(ours[0][:30], table[:30])


@pytest.mark.parametrize("table", ["shared", "separate"])
@pytest.mark.parametrize("aggregation", ["sum", "concat"])
def test_a_sparse_gradient_holds_what_the_dense_one_does(table: str, aggregation: str, always_sparse: None) -> None:
    found = []
    for sparse in (False, True):
        model = model_of(
            "sasrec",
            loss=SAMPLED,
            heads={"next_item": {"table": table, "bias": True}},
            inputs={"aggregation": aggregation},
        ).train()
        if sparse:
            assert use_sparse_gradients(model, "cpu")
        batch = make_schedule(model, random_sessions(60, 50), CONFIG)[0]
        torch.manual_seed(1)
        model(batch).backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    tables = {"inputs.items.table_VE"} | ({"heads.next_item.items_VE"} if table == "separate" else set())
    assert {name for name, gradient in found[1].items() if gradient.is_sparse} == tables
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name].to_dense(), gradient)


def test_only_a_sampled_loss_with_many_items_has_sparse_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(optimizer.SPARSE_FROM, "cpu", 50)
    assert use_sparse_gradients(model_of("sasrec", loss=SAMPLED, num_items=50), "cpu")
    assert not use_sparse_gradients(model_of("sasrec", loss=SAMPLED, num_items=49), "cpu")
    assert not use_sparse_gradients(model_of("sasrec", num_items=50), "cpu")
    assert not use_sparse_gradients(model_of("sasrec", loss=SAMPLED, num_items=50), "cuda")


def run(folder: Path, after_step: Interrupt | None = None, **settings: object) -> tuple[SequenceModel, list[str]]:
    sessions, lines = random_sessions(200, 50), []
    config = ModelConfig.model_validate({"body": {"dim": 16}, "loss": SAMPLED, "heads": {"next_item": {"bias": True}}})
    training = CONFIG.model_copy(update=settings)
    report = lambda line: lines.append(str(line))  # noqa: E731
    split = split_of(sessions, sessions)
    model, _ = fit(schema_of(50), split, config, training, folder, report, after_step=after_step)
    return model, lines


def test_an_interrupted_sparse_run_goes_on_to_the_same_bits(tmp_path: Path, always_sparse: None) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", Interrupt(30))
    resumed, lines = run(tmp_path / "broken")
    assert any("Going on from step" in line for line in lines)
    assert all(torch.equal(whole.state_dict()[name], resumed.state_dict()[name]) for name in whole.state_dict())
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_where_all_gradients_are_dense_it_is_fused_adamw_to_the_last_bit() -> None:
    model = model_of("sasrec", loss=SAMPLED)
    batch = make_schedule(model, random_sessions(60, 50), CONFIG)[0]
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in model.parameters()]
    settings = {"lr": 0.01, "betas": (0.9, 0.98), "weight_decay": 0.1}
    ours, theirs = RowAdamW(model.parameters(), **settings), torch.optim.AdamW(copies, fused=True, **settings)
    for step in range(3):
        model(batch).backward()
        for copy, parameter in zip(copies, model.parameters(), strict=True):
            copy.grad = None if parameter.grad is None else parameter.grad.clone()
        ours.step()
        theirs.step()
        ours.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())
        ours.load_state_dict(ours.state_dict())
        assert all(torch.equal(copy, parameter) for copy, parameter in zip(copies, model.parameters(), strict=True)), (
            step
        )


def test_a_state_that_is_read_lies_where_its_parameters_do() -> None:
    """Checkpoints are read into memory of the CPU, and a GPU's kernel takes no number of steps from there."""
    read = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    weight = nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = RowAdamW([weight])
    optimizer.load_state_dict({"state": {0: read}, "param_groups": optimizer.state_dict()["param_groups"]})
    assert {name: value.device.type for name, value in optimizer.state[weight].items()} == dict.fromkeys(read, "meta")
