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
