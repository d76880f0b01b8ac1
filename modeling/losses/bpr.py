"""BPR: the right item before each sampled one (arXiv:1205.2618).

N predictions, K negatives.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bpr(positive_N: Tensor, negative_NK: Tensor, num_items: int) -> Tensor:
    """Bayesian personalised ranking: the right item before each negative (Rendle et al., arXiv:1205.2618).

    The mean of -log sigmoid(s+ - s_k) over a row's K negatives; 0 for a row without one. The paper's penalty on weights is
    `weight_decay`.
    """
    behind_N = F.softplus(negative_NK - positive_N.unsqueeze(1)).sum(1)  # softplus(-inf) is 0, as is its slope
    return behind_N / negative_NK.isfinite().sum(1).clamp(min=1)
