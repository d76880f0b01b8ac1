"""Sampled softmax: cross-entropy of the right item against sampled ones (Jean et al., arXiv:1412.2007).

N predictions, K negatives.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor


def sampled_softmax(
    positive_N: Tensor,
    negative_NK: Tensor,
    num_items: int,
    *,
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="Share of the target spread over all items.")
    ] = 0.0,
) -> Tensor:
    """Mean of log(exp(s+) + sum_k exp(s_k)) - s+.

    With negatives corrected by logQ (s_k - log of the expected count), it tends to the full softmax as K grows; the positive
    is always there, so it is not corrected (Khrylchenko et al., arXiv:2507.09331).
    """
    all_NK = torch.cat([positive_N.unsqueeze(1), negative_NK], 1)
    loss_N = all_NK.logsumexp(1) - positive_N
    if label_smoothing:
        counts_NK = all_NK > -torch.inf
        mean_N = torch.where(counts_NK, all_NK, 0.0).sum(1) / counts_NK.sum(1)
        loss_N = loss_N + label_smoothing * (positive_N - mean_N)
    return loss_N.mean()
