"""Full softmax: cross-entropy over the whole catalogue, in chunks so that the logits are never held at once.

N predictions, D width, V items.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions

CHUNK_BYTES = {"cpu": 2**24, "cuda": 2**31}  # of logits held at a time


def full_softmax(
    h_ND: Tensor,
    items_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    *,
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="Share of the target spread over all items.")
    ] = 0.0,
) -> Tensor:
    """Mean of -log softmax(h . items + bias)[target] over N predictions (Klenitskiy and Vasilev, arXiv:2309.07602).

    With label smoothing e the target is 1 - e on the right item and e / V on all: the loss grows by e (s[target] - mean(s)).
    """
    # The chunk is set here: torch's own choice is one row at a time for wide catalogues, five times slower.
    rows = CHUNK_BYTES[h_ND.device.type] // (items_VD.shape[0] * h_ND.element_size())
    chunks_pay = len(h_ND) >= h_ND.shape[1] and items_VD.shape[0] > items_VD.shape[1]
    options = LinearCrossEntropyOptions(batch_chunk_size=max(16, rows)) if chunks_pay else None
    items_VD = items_VD.to(h_ND.dtype)
    loss = F.linear_cross_entropy(h_ND, items_VD, target_N, linear_bias=bias_V, options=options)
    if label_smoothing:
        ahead_N = (h_ND * (items_VD[target_N] - items_VD.mean(0))).sum(1)
        if bias_V is not None:
            ahead_N = ahead_N + bias_V[target_N] - bias_V.mean()
        loss = loss + label_smoothing * ahead_N.mean()
    return loss
