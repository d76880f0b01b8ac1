"""Sampled softmax: cross-entropy of the right item against sampled ones (Jean et al., arXiv:1412.2007).

N predictions, K negatives.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from modeling.losses import counted, log_sum_exp


def sampled_softmax(
    positive_N: Tensor,
    negative_NK: Tensor,
    num_items: int,
    *,
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="Share of the target spread over the right item and the negatives.")
    ] = 0.0,
) -> Tensor:
    """Cross-entropy of the right item against the negatives (Jean et al., arXiv:1412.2007).

    log(exp(s+) + sum_k exp(s_k)) - s+. With negatives corrected by logQ (s_k - log of the expected count), it tends to
    the full softmax as K grows; the positive is always there, so it is not corrected (Khrylchenko et al., arXiv:2507.09331).
    With label smoothing e the loss grows by e (s+ - mean(s)) over the 1 + K scores.
    """
    loss_N = log_sum_exp(positive_N, negative_NK) - positive_N
    if label_smoothing:
        score_NK, counts_NK = counted(negative_NK)
        mean_N = (positive_N + score_NK.sum(1)) / (1 + counts_NK.sum(1))
        loss_N = loss_N + label_smoothing * (positive_N - mean_N)
    return loss_N
