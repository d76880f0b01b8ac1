"""gBCE: binary cross-entropy that does not overrate what negative sampling overrates (gSASRec, arXiv:2308.07192).

N predictions, K negatives.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor


def gbce(
    positive_N: Tensor,
    negative_NK: Tensor,
    num_items: int,
    *,
    calibration: Annotated[
        float, Field(ge=0, le=1, description="0: plain BCE; 1: scores are the log-odds of probabilities.")
    ] = 0.75,
) -> Tensor:
    """Binary cross-entropy with the positive's weight lowered (gSASRec, arXiv:2308.07192).

    (-beta log sigmoid(s+) - sum_k log(1 - sigmoid(s_k))) / (1 + K) with beta = 1 - calibration (1 - alpha) and
    alpha = K / (V - 1), the share of the other items that is drawn: the paper's alpha (t (1 - 1/alpha) + 1/alpha) for
    calibration t. K is what counts in each row, drawn uniformly: alpha does not hold for other sources of negatives.

    As in gSASRec's code, the sum is divided by 1 + K. Adam's steps do not follow the scale of a loss, so learning rates for
    a softmax also do here; but next to another head's loss this one weighs about K times less (see the heads' `weight`).
    """
    number_N = negative_NK.isfinite().sum(1).to(positive_N.dtype)
    beta_N = 1 - calibration * (1 - number_N / max(num_items - 1, 1))
    total_N = beta_N * F.softplus(-positive_N) + F.softplus(negative_NK).sum(1)  # softplus(-inf) is 0, as is its slope
    return total_N / (1 + number_N)
