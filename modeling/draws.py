"""Random numbers: dropout, and draws for the rows of a batch.

A process that has some rows of a larger batch draws those that the whole has there, so what is drawn does not depend on how
many processes share a batch.

B rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BITS = 1 << 16  # values of the bits that an element's dropout is decided by


@dataclass(frozen=True)
class Rows:
    """The rows from `first` on, of `count`; the generator is in the same state at all processes that share the batch."""

    first: int
    count: int
    generator: torch.Generator


_rows: Rows | None = None  # of the batch at hand; torch.compile can follow a plain variable alone


@contextmanager
def of_rows(rows: Rows | None) -> Iterator[None]:
    """Within, `rand_of_rows` draws for these rows of a batch; for None as torch.rand does."""
    global _rows
    before, _rows = _rows, rows
    try:
        yield
    finally:
        _rows = before


def rand_of_rows(shape: torch.Size, device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1) for a tensor of this shape, [B, ...]."""
    if (rows := _rows) is None:
        return torch.rand(shape, device=device)
    whole = torch.rand((rows.count, *shape[1:]), device=device, generator=rows.generator)
    return whole[rows.first : rows.first + shape[0]]


def uniform(
    shape: torch.Size | tuple[int, ...], generator: torch.Generator, dtype: torch.dtype | None = None
) -> Tensor:
    """Uniform numbers in [0, 1) on the generator's device, drawn from it.

    Compiled code can pass no generator on: it draws from torch's own one of the device.
    """
    if torch.compiler.is_compiling():
        return torch.rand(shape, device=generator.device, dtype=dtype)
    return torch.rand(shape, generator=generator, device=generator.device, dtype=dtype)


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """`F.dropout`: zero a share `rate` of the elements in training and divide what is left by 1 - rate. Any shape -> the same.

    On a CPU torch draws a float64 an element and branches on each. Here 16 random bits decide, so that an integer drawn is
    enough for four: less than half the time (LOG.md). The rate is then the nearest multiple of 2^-16 below 1. A step that is
    compiled has torch's, which alone a compiler takes.
    """
    by_torch = not 0 < rate < 1 or x.device.type != "cpu" or not x.is_contiguous() or torch.compiler.is_compiling()
    if by_torch or not training:
        return F.dropout(x, rate, training)
    least = min(round(rate * BITS), BITS - 1)
    word_W = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 4),))
    kept = word_W.view(torch.int16)[: x.numel()].view(x.shape) >= least - BITS // 2
    return x * kept.to(x.dtype).mul_(BITS / (BITS - least))
