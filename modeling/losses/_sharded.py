"""Cross-entropy over a catalogue whose rows are divided over processes: each has the scores of its own items alone.

Every process has the states of all N predictions. Of each the largest score and the sum of exponentials are those of all
processes (two all-reduces a chunk); the gradients of a process's items are whole, those of the states are summed over
processes by whoever gathered the states.

N predictions, C of them in a chunk, D width, V items of this process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from modeling.losses._chunked import ByChunks, in_chunks, rows_of_chunk, type_of_products


def sharded_cross_entropy(
    h_ND: Tensor,
    items_VD: Tensor,
    bias_V: Tensor | None,
    column_N: Tensor,
    weight_N: Tensor,
    own: slice,
    most_items: int,
) -> Tensor:
    """sum_n w[n] (log sum_v exp s[n, v] - s[n, target]) over all items of all processes, of the `own` predictions; a scalar.

    The gradients are those of all predictions. `column_N` are targets as columns of this process's items, outside of them where
    another process has the target. `most_items` is the number of items of the process that has the most.
    """
    loss: Tensor = _ShardedCrossEntropy.apply(
        h_ND, items_VD, bias_V, column_N, weight_N, own, most_items, type_of_products(h_ND)
    )
    return loss


class _ShardedCrossEntropy(ByChunks):
    @staticmethod
    def forward(
        ctx: Any,
        h_ND: Tensor,
        items_VD: Tensor,
        bias_V: Tensor | None,
        column_N: Tensor,
        weight_N: Tensor,
        own: slice,
        most_items: int,
        dtype: torch.dtype,
    ) -> Tensor:
        tensors = (h_ND, items_VD, bias_V)
        with torch.autocast(h_ND.device.type, enabled=False):
            weight_N = weight_N.to(torch.promote_types(dtype, torch.float32))

            def slopes(s_CV: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
                return _slopes(s_CV, column_N[chunk])

            rows = rows_of_chunk(h_ND, most_items)  # the same at all processes
            gradients, loss_N = in_chunks(*tensors, weight_N, slopes, rows, dtype)
        ByChunks.keep(ctx, gradients, *tensors)
        return weight_N[own] @ loss_N[own]


def _slopes(s_CV: Tensor, column_C: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each prediction, and z[c] = sum_v exp(s[c, v] - max s[c]) over all items of all processes.

    Scores become z (softmax(s) - [target]) in place.
    """
    place_C1 = column_C.clamp(0, s_CV.shape[1] - 1).unsqueeze(1)
    has_C1 = place_C1 == column_C.unsqueeze(1)
    most_C1 = s_CV.amax(1, keepdim=True)
    dist.all_reduce(most_C1, dist.ReduceOp.MAX)
    right_C1 = s_CV.gather(1, place_C1).sub_(most_C1) * has_C1
    total_C1 = s_CV.sub_(most_C1).exp_().sum(1, keepdim=True)
    sums_C2 = torch.cat([total_C1, right_C1], 1)
    dist.all_reduce(sums_C2)
    total_C1, right_C1 = sums_C2.split(1, 1)
    s_CV.scatter_add_(1, place_C1, -total_C1 * has_C1)
    return (total_C1.log() - right_C1).squeeze(1), total_C1.squeeze(1)
