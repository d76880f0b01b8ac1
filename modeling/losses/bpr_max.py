"""BPR-max: the right item before the best of the sampled ones (GRU4Rec with top-k gains, arXiv:1706.03847).

N predictions, K negatives.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from modeling.losses import counted, log_softmax_of_counted


def bpr_max(
    positive_N: Tensor,
    negative_NK: Tensor,
    num_items: int,
    *,
    regularisation: Annotated[
        float, Field(ge=0, description="Weight of the mean square of the negatives' scores.")
    ] = 1.0,
) -> Tensor:
    """BPR against the negatives as a softmax weighs them: the best count most (arXiv:1706.03847).

    -log sum_k w_k sigmoid(s+ - s_k) + regularisation sum_k w_k s_k^2, where w is the softmax over a row's negatives;
    0 for a row without one. Gradients go through w too. Summed in logarithms: far behind, the loss is s_k - s+ and not log 0.
    """
    score_NK, counts_NK = counted(negative_NK)
    log_weight_NK = log_softmax_of_counted(negative_NK)
    ahead_NK = log_weight_NK + F.logsigmoid(positive_N.unsqueeze(1) - score_NK)
    size_N = (log_weight_NK.exp() * score_NK.square()).sum(1)
    loss_N = regularisation * size_N - ahead_NK.logsumexp(1)
    return loss_N.where(counts_NK.any(1), 0.0)
