"""Draw the items that a sampled loss compares the right one with: a few for each small group of predictions.

Sharing negatives within a batch is fast and learns little, one set for each prediction is slow: groups of 32 lie between.

N predictions, G groups of them, K negatives, V items of the catalogue.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.config import NegativesConfig


def draw(
    config: NegativesConfig, target_N: Tensor, num_items: int, popularity_V: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Columns of K items for each of G = ceil(N / group) groups, and log(K q), the logarithm of each one's expected count.

    `popularity_V` counts how often each item occurs in training, for source `popularity`. The second is None unless
    `corrected`. Both have the shape [G, K].
    """
    shape = (-(-len(target_N) // config.group), config.count)
    device = target_N.device
    column_GK = torch.randint(num_items, shape, device=device)
    if config.source == "uniform":
        share_V = None
    elif config.source == "popularity":
        assert popularity_V is not None
        upto_V = popularity_V.double().cumsum(0)
        dart_GK = torch.rand(shape, device=device, dtype=torch.float64) * upto_V[-1]
        popular_GK = torch.searchsorted(upto_V, dart_GK, right=True).clamp(max=num_items - 1)
        share_V = popularity_V / popularity_V.sum()
    else:
        popular_GK = target_N[torch.randint(len(target_N), shape, device=device)]
        share_V = torch.bincount(target_N, minlength=num_items) / len(target_N)
    if share_V is not None:
        uniform_GK = torch.rand(shape, device=device) < config.mixed
        column_GK = torch.where(uniform_GK, column_GK, popular_GK)
    if not config.corrected:
        return column_GK, None
    uniform = 1 / num_items
    share_GK = (
        torch.full(shape, uniform, device=device)
        if share_V is None
        else (config.mixed * uniform + (1 - config.mixed) * share_V[column_GK])
    )
    return column_GK, (share_GK * config.count).float().log()
