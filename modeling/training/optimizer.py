"""AdamW that also takes sparse gradients: with a large catalogue, only the rows of item vectors that a step has read.

A sampled loss reads some thousand rows of a table of a million. A dense gradient, two moments and weights of that size cost
more than all the rest of the step.

R rows that a step has read, E width of item vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modeling.config import NEXT_ITEM
from modeling.model import SequenceModel

SPARSE_FROM = {
    "cpu": 50_000,
    "cuda": 10_000_000,
}  # items; below, dense steps cost about as little (on a GPU: estimated)


def use_sparse_gradients(model: SequenceModel, device: str) -> bool:
    """Let the gradients of item vectors hold only the rows read, where that pays: a sampled loss, a large catalogue."""
    if NEXT_ITEM not in model.heads:
        return False
    head = model.next_item
    pays = head.sampled and model.schema.num_items >= SPARSE_FROM[device]
    model.inputs.items.sparse = head.sparse = pays
    return pays


class RowAdamW(torch.optim.AdamW):
    """AdamW; where a gradient is sparse, Adam on the rows it holds (torch's SparseAdam), without weight decay.

    Rows not read keep their moments and do not move: not the same as Adam, which moves them for a while. The state has
    AdamW's names and shapes.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; sparse gradients are gone after it."""
        assert closure is None
        for group in self.param_groups:
            for table_VE in group["params"]:
                if table_VE.grad is not None and table_VE.grad.is_sparse:
                    self._step_rows(table_VE, group)
                    table_VE.grad = None
        super().step()

    def _step_rows(self, table_VE: Tensor, group: dict[str, Any]) -> None:
        assert table_VE.grad is not None
        state, (beta1, beta2) = self.state[table_VE], group["betas"]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table_VE), torch.zeros_like(table_VE)
        state["step"] += 1
        steps = float(state["step"])
        grad = table_VE.grad.coalesce()
        row_R, grad_RE = grad.indices()[0], grad.values()
        mean_RE = state["exp_avg"][row_R].lerp_(grad_RE, 1 - beta1)
        square_RE = state["exp_avg_sq"][row_R].mul_(beta2).addcmul_(grad_RE, grad_RE, value=1 - beta2)
        state["exp_avg"][row_R], state["exp_avg_sq"][row_R] = mean_RE, square_RE
        change_RE = mean_RE / (square_RE / (1 - beta2**steps)).sqrt_().add_(group["eps"])
        table_VE.index_add_(0, row_R, change_RE, alpha=-group["lr"] / (1 - beta1**steps))
