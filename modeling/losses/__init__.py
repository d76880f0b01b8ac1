"""Training losses, one pure function per file, found by name. Options are keyword-only parameters.

Two forms, told apart by their first parameter:

`loss(h_ND, items_VD, bias_V, target_N)` sees the scores of the whole catalogue, h . items + bias.
`loss(positive_N, negative_NK, num_items)` sees the score of the right item and of K sampled ones; -inf marks a negative that
does not count. `num_items` is the size of the catalogue.

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


def mean_of_counted(value_NK: Tensor, negative_NK: Tensor) -> Tensor:
    """Mean over each row's negatives that count, shape [N]; 0 for a row without one."""
    counts_NK = negative_NK > -torch.inf
    total_N = torch.where(counts_NK, value_NK, 0.0).sum(1)
    return total_N / counts_NK.sum(1).clamp(min=1)
