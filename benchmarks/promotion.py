"""How often promotion is right: verdicts on simulated pairs of models whose true difference is known.

    python benchmarks/promotion.py [--pairs 120] [--users 500 5000 50000]
    python benchmarks/promotion.py --seed-scatter .02 --users 5000

A case has a place on a log scale that both models share, and each model its own noise: ranks are its exponential. The new
model's are moved so that its true NDCG@20, of a million cases, differs by what the column says. A user has one to three cases.

With `--seed-scatter S` each training is moved by chance, so that its NDCG@20 has a relative standard deviation of S: the
column then says how recipes differ, and a row how the verdict counts with S. `ignored`: not at all, `given`: it is S,
`measured`: by so many measurements of three seeds on as many users (`stages.scatter`).
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from functools import cache
from statistics import NormalDist

import numpy as np
import polars as pl
import torch

from modeling.config import PromotionConfig
from modeling.evaluation.evidence import Difference, Pairs, verdict_of
from modeling.evaluation.metrics import gains_of
from modeling.stages.scatter import pooled, variance_of

METRIC = "ndcg@20"
CENTRE, SPREAD, CORRELATION = 5.2, 2.0, 0.9  # of log ranks: an NDCG@20 of about .05
EFFECTS = (-0.05, -0.02, -0.01, 0.0, 0.02, 0.05, 0.10, 0.20)
USERS = (500, 5_000, 50_000)
MEASUREMENTS = 24  # of the scatter, of which each simulated night has some


def ranks_of(rng: np.random.Generator, size: int, *moved: float) -> list[np.ndarray]:
    """The ranks of models for so many cases, each moved so far upwards."""
    shared = rng.normal(size=size) * SPREAD * CORRELATION**0.5 + CENTRE
    own = rng.normal(size=(len(moved), size)) * SPREAD * (1 - CORRELATION) ** 0.5
    return [np.maximum(np.exp(shared + noise - by).round(), 1.0) for noise, by in zip(own, moved, strict=True)]


def mean_of(rank_N: np.ndarray) -> float:
    return float(gains_of(METRIC, torch.from_numpy(rank_N)).mean())


@cache
def move_for(effect: float) -> float:
    """How far log ranks are moved for a relative difference of `effect`, by halving."""
    low, high = -1.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        new_N, old_N = ranks_of(np.random.default_rng(1), 10**6, middle, 0.0)
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
        drawn = Pairs(*ranks_of(rng, len(user_N), moved, 0.0), user_N)
        difference = drawn.difference(METRIC, promotion.confidence, promotion.seed_scatter)
        counts[verdict_of(difference, -promotion.margin)] += 1
    return {verdict: count / pairs for verdict, count in counts.items()}


def rates_with_seeds(
    users: int, moved: float, scatter: float, measured: list[float], pairs: int, promotion: PromotionConfig
) -> dict[str, dict[str, int]]:
    """How often each verdict comes, by what it counts with: pairs of trainings that are moved by chance, too."""
    rng, by = np.random.default_rng(users), move_for(scatter)
    counts = {
        name: dict.fromkeys(("promote", "keep", "hold"), 0) for name in ("ignored", "given", "measured 1", "measured 8")
    }
    for _ in range(pairs):
        user_N = np.repeat(np.arange(users), rng.integers(1, 4, users))
        by_chance = rng.normal(size=2) * by
        drawn = Pairs(*ranks_of(rng, len(user_N), moved + by_chance[0], by_chance[1]), user_N)
        difference = drawn.difference(METRIC, promotion.confidence)
        used = {"ignored": 0.0, "given": scatter}
        for number in (1, 8):
            some = rng.choice(measured, number, replace=False)
            used[f"measured {number}"] = pooled([{"variance": value, "seeds": 3} for value in some])
        for name, value in used.items():
            counts[name][verdict_of(widened(difference, value, promotion), -promotion.margin)] += 1
    return counts


def widened(difference: Difference, scatter: float, promotion: PromotionConfig) -> Difference:
    """The bounds that `Pairs.difference` gives with this scatter."""
    seeds = NormalDist().inv_cdf(promotion.confidence) * 2**0.5 * scatter
    low, high = (math.hypot(of, seeds) for of in (difference.below, difference.above))
    return replace(difference, low=difference.gain - low, high=difference.gain + high, seeds=seeds)


def measurements(users: int, scatter: float) -> list[float]:
    """The variance between seeds as so many nights would measure it."""
    rng, by, variances = np.random.default_rng(7), move_for(scatter), []
    for _ in range(MEASUREMENTS):
        user_N = np.repeat(np.arange(users), rng.integers(1, 4, users))
        about = {"case": np.arange(len(user_N)), "user": user_N}
        ranks = ranks_of(rng, len(user_N), *(rng.normal(size=3) * by))
        variances.append(variance_of([pl.DataFrame(about | {"rank": rank_N}) for rank_N in ranks], METRIC))
    return variances


def show_seeds(users: int, scatter: float, moves: dict[float, float], pairs: int, promotion: PromotionConfig) -> None:
    """A row for each way to count with the scatter."""
    measured = measurements(users, scatter)
    mean, spread = np.mean(measured), np.std(measured)
    print(f"{users:,} users: a measurement of s^2 = {scatter**2:.6f} gives {mean:.6f} +- {spread:.6f}", flush=True)
    shares = [rates_with_seeds(users, moved, scatter, measured, pairs, promotion) for moved in moves.values()]
    for name in shares[0]:
        cells = (f"{100 * of[name]['promote'] / pairs:.1f} / {100 * of[name]['keep'] / pairs:.1f}" for of in shares)
        print(f"{users:>9,} users, {name:<11}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--users", type=int, nargs="+", default=USERS)
    parser.add_argument("--effects", type=float, nargs="+", default=EFFECTS)
    parser.add_argument("--seed-scatter", type=float, default=0.0)
    given, promotion = parser.parse_args(), PromotionConfig()
    moves = {effect: move_for(effect) for effect in given.effects}
    print(f"old model: {METRIC} {mean_of(ranks_of(np.random.default_rng(1), 10**6, 0.0)[0]):.4f}")
    print("promote / keep, per cent   " + "".join(f"{effect:>+12.0%}" for effect in given.effects))
    for users in given.users:
        if given.seed_scatter:
            show_seeds(users, given.seed_scatter, moves, given.pairs, promotion)
            continue
        shares = [rates(users, moved, given.pairs, promotion) for moved in moves.values()]
        cells = (f"{100 * of['promote']:.1f} / {100 * of['keep']:.1f}" for of in shares)
        print(f"{users:>9,} users            " + "".join(f"{cell:>12}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
