"""Full softmax: cross-entropy over the whole catalogue, in chunks so that the logits are never held at once."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions

CHUNK_BYTES = {"cpu": 2**24, "cuda": 2**31}  # of logits held at a time


def full_softmax(h_ND: Tensor, items_VD: Tensor, bias_V: Tensor | None, target_N: Tensor) -> Tensor:
    """Mean of -log softmax(h . items + bias)[target] over N predictions (Klenitskiy and Vasilev, arXiv:2309.07602).

    The chunk is set here: torch's own choice is one row at a time for wide catalogues, five times slower.
    """
    rows = CHUNK_BYTES[h_ND.device.type] // (items_VD.shape[0] * h_ND.element_size())
    chunks_pay = len(h_ND) >= h_ND.shape[1] and items_VD.shape[0] > items_VD.shape[1]
    options = LinearCrossEntropyOptions(batch_chunk_size=max(16, rows)) if chunks_pay else None
    return F.linear_cross_entropy(h_ND, items_VD.to(h_ND.dtype), target_N, linear_bias=bias_V, options=options)
