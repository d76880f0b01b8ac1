"""Binary cross-entropy of the right item and of sampled ones (SASRec, arXiv:1808.09781, with one negative).

N predictions, K negatives.
"""

from __future__ import annotations

from torch import Tensor

from modeling.losses.gbce import gbce


def bce(positive_N: Tensor, negative_NK: Tensor, num_items: int) -> Tensor:
    """Binary cross-entropy: is this the next item, for the right one and each negative (SASRec, arXiv:1808.09781).

    (-log sigmoid(s+) - sum_k log(1 - sigmoid(s_k))) / (1 + K): gBCE at calibration 0, and its scale.
    """
    return gbce(positive_N, negative_NK, num_items, calibration=0.0)
