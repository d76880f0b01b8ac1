"""Dropout that is drawn faster on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """`F.dropout`: zero a share `rate` of the elements in training and divide the others by 1 - rate. Any shape -> the same.

    On a CPU torch draws an element by comparing a uniform float64 with the rate, and branches on each, which processors guess
    wrong half the time. All are drawn and compared here, in the same order from the same generator: equal to the last bit, in
    half the time at a rate of .4 (LOG.md).
    """
    if not training or not rate or x.device.type != "cpu" or not x.is_contiguous():
        return F.dropout(x, rate, training)
    kept = torch.rand(x.shape, dtype=torch.float64) < 1 - rate
    return x * kept.to(x.dtype).div_(1 - rate)
