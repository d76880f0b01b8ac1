"""Draw the items that a sampled loss compares the right one with: a few for each small group of predictions.

Sharing negatives within a batch is fast and learns little, one set for each prediction is slow: groups of 32 lie between.

N predictions, G groups of them, K negatives, V items of the catalogue, U of them drawn uniformly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.config import NegativesConfig


def draw(
    config: NegativesConfig,
    target_N: Tensor,
    popularity_V: Tensor,
    weight_N: Tensor | None = None,
    uniform_U: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Columns of K items for each of G = ceil(N / group) groups, independent of one another, shape [G, K], and the logQ.

    `popularity_V` counts how often each item occurs in training. The logQ, log(K q) of each item drawn, is the logarithm of
    how often one draw of K holds it on average, shape [G, K]; None unless `corrected`. An item of the batch's targets is
    drawn as often as it is popular, so `in_batch` takes q from popularity too (Yi et al., doi 10.1145/3298689.3346996), and
    never a target that weighs nothing. What is drawn uniformly is one of the columns `uniform_U`, or of all.
    """
    shape = (-(-len(target_N) // config.group), config.count)
    num_items, device = len(popularity_V), target_N.device
    num_uniform, share_uniform = num_items if uniform_U is None else len(uniform_U), 1.0
    column_GK = torch.randint(num_uniform, shape, device=device, generator=generator)
    if uniform_U is not None:
        column_GK = uniform_U[column_GK]
    if config.source != "uniform":
        drawn_GK = (
            _popular(shape, popularity_V, generator)
            if config.source == "popularity"
            else _in_batch(shape, target_N, weight_N, generator)
        )
        share_uniform = config.mixed
        column_GK = column_GK.where(torch.rand(shape, device=device, generator=generator) < share_uniform, drawn_GK)
    if not config.corrected:
        return column_GK, None
    q_GK = share_uniform / num_uniform + (1 - share_uniform) * popularity_V[column_GK] / popularity_V.sum()
    return column_GK, (config.count * q_GK).log()


def _popular(shape: tuple[int, int], popularity_V: Tensor, generator: torch.Generator | None) -> Tensor:
    """Items as often as they occur in training."""
    upto_V = popularity_V.cumsum(0, dtype=torch.float64)
    dart_GK = torch.rand(shape, device=upto_V.device, dtype=torch.float64, generator=generator) * upto_V[-1]
    return torch.searchsorted(upto_V, dart_GK, right=True)


def _in_batch(
    shape: tuple[int, int], target_N: Tensor, weight_N: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """Items that are asked about in the same batch."""
    counts_N = torch.ones_like(target_N) if weight_N is None else weight_N > 0
    upto_N = counts_N.cumsum(0)
    dart_GK = (torch.rand(shape, device=target_N.device, dtype=torch.float64, generator=generator) * upto_N[-1:]).long()
    return target_N[torch.searchsorted(upto_N, dart_GK, right=True).clamp(max=len(target_N) - 1)]
