"""How often promotion is right: verdicts on simulated pairs of models whose true difference is known.

    python benchmarks/promotion.py [--pairs 120]

A case has a place on a log scale that both models share, and each model its own noise: ranks are its exponential. The new
model's are moved so that its true NDCG@20, of a million cases, differs by what the column says. A user has one to three cases.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from modeling.config import PromotionConfig
from modeling.evaluation.evidence import Pairs, verdict_of
from modeling.evaluation.metrics import gains_of

METRIC = "ndcg@20"
CENTRE, SPREAD, CORRELATION = 5.2, 2.0, 0.9  # of log ranks: an NDCG@20 of about .05
EFFECTS = (-0.05, -0.02, -0.01, 0.0, 0.02, 0.05, 0.10, 0.20)
USERS = (500, 5_000, 50_000)


def ranks_of(rng: np.random.Generator, size: int, moved: float) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of a new and of an old model for so many cases."""
    shared = rng.normal(size=size) * SPREAD * CORRELATION**0.5 + CENTRE
    own = rng.normal(size=(2, size)) * SPREAD * (1 - CORRELATION) ** 0.5
    return np.maximum(np.exp(shared + own[0] - moved).round(), 1.0), np.maximum(np.exp(shared + own[1]).round(), 1.0)


def mean_of(rank_N: np.ndarray) -> float:
    return float(gains_of(METRIC, torch.from_numpy(rank_N)).mean())


def move_for(effect: float) -> float:
    """How far log ranks are moved for a relative difference of `effect`, by halving."""
    low, high = -1.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        new_N, old_N = ranks_of(np.random.default_rng(1), 10**6, middle)
        if mean_of(new_N) / mean_of(old_N) - 1 < effect:
            low = middle
        else:
            high = middle
    return (low + high) / 2 if effect else 0.0


def rates(users: int, moved: float, pairs: int, promotion: PromotionConfig) -> dict[str, float]:
    """The share of each verdict."""
    rng, counts = np.random.default_rng(users), dict.fromkeys(("promote", "keep", "hold"), 0)
    for _ in range(pairs):
        user_N = np.repeat(np.arange(users), rng.integers(1, 4, users))
        drawn = Pairs(*ranks_of(rng, len(user_N), moved), user_N)
        difference = drawn.difference(METRIC, promotion.confidence, promotion.seed_scatter)
        counts[verdict_of(difference, -promotion.margin)] += 1
    return {verdict: count / pairs for verdict, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=120)
    given, promotion = parser.parse_args(), PromotionConfig()
    moves = {effect: move_for(effect) for effect in EFFECTS}
    print(f"old model: {METRIC} {mean_of(ranks_of(np.random.default_rng(1), 10**6, 0.0)[1]):.4f}")
    print("promote / keep, per cent   " + "".join(f"{effect:>+12.0%}" for effect in EFFECTS))
    for users in USERS:
        found = [rates(users, moves[effect], given.pairs, promotion) for effect in EFFECTS]
        cells = (f"{100 * of['promote']:.1f} / {100 * of['keep']:.1f}" for of in found)
        print(f"{users:>9,} users            " + "".join(f"{cell:>12}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
