"""Ranking metrics of the field from the rank of the one hidden item. N cases."""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.config import METRICS


def metrics_at(rank_N: Tensor, cutoffs: tuple[int, ...]) -> dict[str, float]:
    """Mean over cases of each metric at each cut-off, named as in `ndcg@20`.

    With one relevant item at rank r (from 1; ties count half, so r may end in .5) and hit = [r <= k]:
    recall = hitrate = hit; precision = hit / k; map = mrr = hit / r; ndcg = hit / log2(1 + r).
    """
    rank_N = rank_N.double()
    found: dict[str, float] = {}
    for k in cutoffs:
        hit_N = (rank_N <= k).double()
        gains = {
            "recall": hit_N,
            "precision": hit_N / k,
            "hitrate": hit_N,
            "map": hit_N / rank_N,
            "mrr": hit_N / rank_N,
            "ndcg": hit_N / torch.log2(1 + rank_N),
        }
        found |= {f"{name}@{k}": float(gains[name].mean()) for name in METRICS}
    return found
