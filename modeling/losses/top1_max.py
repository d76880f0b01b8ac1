"""TOP1-max: the right item before the best of the sampled ones, whose scores are kept near zero (arXiv:1706.03847).

N predictions, K negatives.
"""

from __future__ import annotations

from torch import Tensor

from modeling.losses import counted, log_softmax_of_counted


def top1_max(positive_N: Tensor, negative_NK: Tensor, num_items: int) -> Tensor:
    """TOP1 against the negatives as a softmax weighs them: the best count most (GRU4Rec, arXiv:1706.03847).

    sum_k w_k (sigmoid(s_k - s+) + sigmoid(s_k^2)), where w is the softmax over a row's negatives; 0 for a row
    without one. The second term keeps scores near zero, where it is a half: the loss of a perfect model is 0.5.
    """
    score_NK, counts_NK = counted(negative_NK)
    weight_NK = log_softmax_of_counted(negative_NK).exp()
    behind_NK = (score_NK - positive_N.unsqueeze(1)).sigmoid() + score_NK.square().sigmoid()
    return (weight_NK * behind_NK * counts_NK).sum(1)
