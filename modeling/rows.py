"""Rows of a table of vectors, and their gradients on a CPU.

The gradient of `F.embedding` is made by adding rows one by one, each by a call of its own. Here they are added by one call: a
quarter of the time for 4,096 rows of a table of 12,000 (LOG.md).

E width of a row.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def rows_of(table: Tensor, ids: Tensor, *, sparse: bool = False) -> Tensor:
    """`F.embedding`: rows of a table [V, E] at ids [...] -> [..., E]. With `sparse` the table's gradient holds these alone."""
    if sparse or not by_hand(table):
        return F.embedding(ids, table, sparse=sparse)
    rows: Tensor = _Rows.apply(table, ids)
    return rows


def by_hand(tensor: Tensor) -> bool:
    """Whether gradients of what is made of it are made by hand: on a CPU, in one type of numbers, and not by a compiler."""
    on_cpu = tensor.device.type == "cpu"
    return on_cpu and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape = table.shape
        return F.embedding(ids, table)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        (ids,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape).index_add_(0, ids.flatten(), grad.reshape(-1, grad.shape[-1])), None
