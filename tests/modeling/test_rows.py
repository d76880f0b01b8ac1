"""Rows of tables, scores of groups and log-sum-exp, whose gradients are made by hand on a CPU: those of torch's operations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.config import TrainingConfig
from modeling.losses import log_sum_exp
from modeling.losses._groups import scores_of_groups
from modeling.rows import rows_of
from modeling.training.optimizer import make_optimizer
from modeling.training.schedule import make_schedule
from tests.conftest import model_of, random_sessions

VIEWS = ("view", "t", "transpose", "unsqueeze", "slice", "detach", "select", "expand", "_unsafe_view", "alias", "split")


class Operations(TorchDispatchMode):
    """Counts the operations that are done within, but for views."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 0), ()])
def test_rows_and_their_gradient_are_those_of_an_embedding(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 6, shape, dtype=dtype)  # some twice, of eight the last two never
    weight = torch.randn(*shape, 4)
    results = []
    for read in (rows_of, F.embedding):
        table = torch.linspace(-1, 1, 32).view(8, 4).requires_grad_()
        rows = read(table, ids) if read is rows_of else read(ids, table)
        (rows.square() * weight).sum().backward()
        results.append((rows, table.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert rows_of(torch.zeros(8, 4), ids).requires_grad is False


def scored(before: int, count: int, *, shifted: bool) -> tuple[list[Tensor], Tensor, Tensor]:
    """Queries, vectors and shifts in float64; targets and negatives of groups of four, some of which are the target."""
    generator = torch.Generator().manual_seed(5)
    num_groups = -(-(before + count) // 4)
    shapes = [(count, 3), (count + num_groups * 6, 3), *([(num_groups, 6)] if shifted else [])]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    target_N = torch.randint(0, 5, (count,), generator=generator)
    column_GK = torch.randint(0, 5, (num_groups, 6), generator=generator)
    column_GK[-1, 0] = target_N[-1]
    return inputs, target_N, column_GK


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("before", "count"), [(0, 8), (0, 7), (3, 1), (2, 9)])
def test_scores_are_products_and_a_target_among_the_negatives_counts_for_nothing(
    before: int, count: int, shifted: bool
) -> None:
    inputs, target_N, column_GK = scored(before, count, shifted=shifted)
    q_NE, item_RE, *shift = (tensor.detach() for tensor in inputs)
    shift_GK = shift[0] if shift else None
    positive_N, negative_NK = scores_of_groups(q_NE, item_RE, target_N, column_GK, shift_GK, 4, before)
    item_GKE = item_RE[count:].view(*column_GK.shape, 3)
    for n in range(count):
        group = (before + n) // 4
        assert float(positive_N[n]) == pytest.approx(float(q_NE[n] @ item_RE[n]))
        for k, column in enumerate(column_GK[group].tolist()):
            score = float(q_NE[n] @ item_GKE[group, k]) + (float(shift_GK[group, k]) if shift_GK is not None else 0.0)
            assert float(negative_NK[n, k]) == (-torch.inf if column == target_N[n] else pytest.approx(score))
    assert (negative_NK == -torch.inf).any()


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("before", "count"), [(0, 8), (0, 7), (3, 1), (2, 9)])
def test_gradients_of_scores_are_those_of_finite_differences(before: int, count: int, shifted: bool) -> None:
    inputs, target_N, column_GK = scored(before, count, shifted=shifted)

    def scores(q_NE: Tensor, item_RE: Tensor, shift_GK: Tensor | None = None) -> Tensor:
        positive_N, negative_NK = scores_of_groups(q_NE, item_RE, target_N, column_GK, shift_GK, 4, before)
        return torch.cat([positive_N, negative_NK.masked_fill(negative_NK == -torch.inf, 0).flatten()])

    assert torch.autograd.gradcheck(scores, inputs)


def test_what_becomes_of_a_target_among_the_negatives_moves_nothing() -> None:
    """The slope of a loss at a score of -inf is not taken."""
    (q_NE, item_RE), target_N, column_GK = scored(0, 7, shifted=False)
    _, negative_NK = scores_of_groups(q_NE, item_RE, target_N, column_GK, None, 4, 0)
    weight_NK = (negative_NK == -torch.inf).double()
    assert weight_NK.any()
    for gradient in torch.autograd.grad(negative_NK, (q_NE, item_RE), weight_NK):
        assert not gradient.any()


def test_log_sum_exp_is_that_of_all_scores_in_a_row() -> None:
    torch.manual_seed(0)
    positive_N, negative_NK = torch.randn(5, dtype=torch.float64), 30 * torch.randn(5, 4, dtype=torch.float64)
    negative_NK[0], negative_NK[1, 2] = -torch.inf, -torch.inf
    results = []
    for take in (log_sum_exp, lambda right, wrong: torch.cat([right[:, None], wrong], 1).logsumexp(1)):
        inputs = [positive_N.clone().requires_grad_(), negative_NK.clone().requires_grad_()]
        value = take(*inputs)
        results.append((value, *torch.autograd.grad(value, inputs, torch.arange(5.0, dtype=torch.float64))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_step_of_a_sampled_loss_takes_few_operations_and_two_gradients_of_the_table() -> None:
    model = model_of("sasrec", loss={"name": "sampled_softmax", "negatives": {"count": 8}}).train()
    config = TrainingConfig(epochs=1, tokens_per_step=256, order="random")
    schedule, optimizer = make_schedule(model, random_sessions(200, 50), config), make_optimizer(model, config)
    for step in range(2):
        with Operations() as batch:
            made = schedule[step]
        with Operations() as forward:
            loss = model(made)
        with Operations() as backward:
            loss.backward()
        with Operations() as update:
            optimizer.step()
    assert batch.names.total() <= 77
    assert forward.names.total() + backward.names.total() <= 240
    assert update.names["_fused_adamw_"] == 2 and update.names.total() <= 6
    assert backward.names["embedding_dense_backward"] == 0
    assert backward.names["index_add_"] <= 4  # inputs, positions, all that is scored, states
    assert forward.names["randint"] == 6  # masks of the input and of two blocks, negatives
