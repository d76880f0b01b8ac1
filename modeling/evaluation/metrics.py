"""Metrics of the field: of a ranking, from the rank of the one hidden item; of labels, from what was predicted for them.

N cases, B bins. Undefined is NaN: everything of no cases, AUC of cases that are all alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modeling.config import METRICS

NUM_BINS = 10
LEAST_PROBABILITY = 1e-15
MOST_CASES = 2**20  # compared at a time
PERCENTILES = {"median": 50, "p75": 75, "p90": 90}


def metrics_at(rank_N: Tensor, cutoffs: tuple[int, ...]) -> dict[str, float]:
    """Mean over cases of each metric at each cut-off, named as in `ndcg@20`."""
    rank_N = rank_N.double()
    return {name: float(gains_of(name, rank_N).mean()) for name in names_at(cutoffs)}


def names_at(cutoffs: tuple[int, ...]) -> list[str]:
    """The names of all metrics of ranks at these cut-offs: recall@5, precision@5, ..."""
    return [f"{name}@{k}" for k in cutoffs for name in METRICS]


def gains_of(metric: str, rank_N: Tensor) -> Tensor:
    """What each case adds to a metric named as in `ndcg@20`, float64 of shape [N]; the metric is their mean.

    With one relevant item at rank r (from 1; ties count half, so r may end in .5; infinity is a miss) and hit = [r <= k]:
    recall = hitrate = hit; precision = hit / k; map = mrr = hit / r; ndcg = hit / log2(1 + r).
    """
    name, _, cutoff = metric.partition("@")
    hit_N = (rank_N <= int(cutoff)).double()
    if name == "precision":
        return hit_N / int(cutoff)
    if name in ("map", "mrr"):
        return hit_N / rank_N
    return hit_N / torch.log2(1 + rank_N) if name == "ndcg" else hit_N


def rank_percentiles(rank_N: Tensor) -> dict[str, float]:
    """The rank that half, three quarters and nine tenths of the cases reach: `median`, `p75`, `p90`; infinity is a miss.

    The smallest rank r such that at least that share of the ranks is r or less.
    """
    if not len(rank_N):
        return dict.fromkeys(PERCENTILES, float("nan"))
    sorted_N = rank_N.double().sort().values
    places = {name: max(-(-len(sorted_N) * percent // 100) - 1, 0) for name, percent in PERCENTILES.items()}
    return {name: float(sorted_N[place]) for name, place in places.items()}


def defined(value: float) -> float | None:
    """A number that JSON has, or None."""
    return value if math.isfinite(value) else None


def auc(score_N: Tensor, label_N: Tensor) -> float:
    """Area under the ROC curve: the chance that a case of label 1 scores above one of label 0; a tie counts half.

    Exact, by counting for each case of the more frequent label how many of the rest lie above it (Mann and Whitney, 1947).
    It holds the sorted scores of the rarer label, and as many of the rest at a time.
    """
    ones, zeros = score_N[label_N > 0], score_N[label_N <= 0]
    pairs = float(len(ones)) * len(zeros)
    if not pairs:
        return float("nan")
    few, many = (ones, zeros) if len(ones) <= len(zeros) else (zeros, ones)
    few, below = few.sort().values, 0.0  # below: pairs in which the rarer label has the lower score
    for part in many.split(MOST_CASES):
        low, high = torch.searchsorted(few, part), torch.searchsorted(few, part, right=True)
        below += float(low.sum() + high.sum()) / 2
    return below / pairs if len(ones) > len(zeros) else 1 - below / pairs


def log_loss(probability_N: Tensor, label_N: Tensor) -> float:
    """Mean of -log p where the label is 1, -log(1 - p) where it is 0, in nats; p is kept 1e-15 off 0 and 1."""
    p_N, label_N = probability_N.double().clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY), label_N.double()
    return float(-(label_N * p_N.log() + (1 - label_N) * (-p_N).log1p()).mean())


def calibration_error(probability_N: Tensor, label_N: Tensor) -> float:
    """Expected calibration error: sum over bins of share of cases * |mean label - mean probability|.

    Ten bins, cut at the deciles of the probabilities so that rare labels do not all fall into one (Nguyen and O'Connor,
    arXiv:1508.05154); equal probabilities share a bin.
    """
    p_N = probability_N.double()
    if not len(p_N):
        return float("nan")
    # torch.quantile refuses more than 2^24 cases; this is its rule, the line between the two neighbours.
    place_B = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.double, device=p_N.device)[1:-1] * (len(p_N) - 1)
    sorted_N = p_N.sort().values
    edges = torch.lerp(sorted_N[place_B.floor().long()], sorted_N[place_B.ceil().long()], place_B.frac())
    gap_B = p_N.new_zeros(NUM_BINS).index_add_(0, torch.bucketize(p_N, edges), label_N.double() - p_N)
    return float(gap_B.abs().sum() / len(p_N))


def rmse(predicted_N: Tensor, value_N: Tensor) -> float:
    """Root of the mean squared error, in the label's unit."""
    return float((predicted_N.double() - value_N.double()).square().mean().sqrt())


def mae(predicted_N: Tensor, value_N: Tensor) -> float:
    """Mean absolute error, in the label's unit."""
    return float((predicted_N.double() - value_N.double()).abs().mean())
