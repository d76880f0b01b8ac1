"""Training losses, one pure function per file, found by name. Options are keyword-only parameters.

Two forms, which differ in their first parameter:

Catalogue: `loss(h_ND, items_VD, bias_V, target_N, weight_N) -> scalar` sees the scores of the whole catalogue,
h . items + bias (`bias_V` may be None), and returns sum_n weight[n] * loss[n].

Sampled: `loss(positive_N, negative_NK, num_items) -> loss_N` sees the score of the right item and of K sampled ones, and
returns one number a prediction, which depends on its own row alone; the head weighs and sums them. A negative of -inf does
not count: the loss is what it would be had it not been drawn, also where none of a row counts. `num_items` is the size of
the catalogue.

The weights of a batch sum to 1, so that the loss of a batch is a weighted mean; places that only fill a batch weigh 0.

N predictions, K negatives, V items, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modeling.rows import by_hand


def is_sampled(loss: Callable[..., Any]) -> bool:
    """Whether a loss is of the second form."""
    return next(iter(inspect.signature(loss).parameters)) == "positive_N"


def counted(negative_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Scores with 0 in the place of -inf, which formulas can take, and which of them count."""
    counts_NK = negative_NK > -torch.inf
    return negative_NK.masked_fill(~counts_NK, 0.0), counts_NK


def log_softmax_of_counted(negative_NK: Tensor) -> Tensor:
    """Log of the softmax over each row's negatives that count: of the rest hugely negative; finite in a row of none."""
    return negative_NK.clamp(min=torch.finfo(negative_NK.dtype).min).log_softmax(1)


def log_sum_exp(positive_N: Tensor, negative_NK: Tensor) -> Tensor:
    """Log of the sum of the exponentials of a right item's score and of those of its negatives, [N]."""
    if not by_hand(positive_N):
        return torch.cat([positive_N.unsqueeze(1), negative_NK], 1).logsumexp(1)
    total_N: Tensor = _LogSumExp.apply(positive_N, negative_NK)
    return total_N


class _LogSumExp(torch.autograd.Function):
    """Each exponential is taken once: the gradient is what `forward` made of it, scaled. (torch's takes it again.)"""

    @staticmethod
    def forward(ctx: Any, positive_N: Tensor, negative_NK: Tensor) -> Tensor:
        most_N = torch.maximum(positive_N, negative_NK.amax(1))
        exp_NK = (negative_NK - most_N.unsqueeze(1)).exp_()
        exp_N = (positive_N - most_N).exp_()
        total_N = exp_NK.sum(1).add_(exp_N)
        ctx.save_for_backward(exp_N, exp_NK, total_N)
        return total_N.log().add_(most_N)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, Tensor]:
        exp_N, exp_NK, total_N = ctx.saved_tensors
        share_N = grad_N / total_N
        return share_N * exp_N, exp_NK * share_N.unsqueeze(1)
