"""Whether a new model takes over from the one in service: by the ranks of both on the same test cases, with what chance allows.

The gain of a metric is the relative difference of its means over the same cases; how far it may be from that of all users
like these is found by drawing users again (`bootstrap`). Signs and ranks of differences are not tested: what is asked is how
much is lost, not how often.

    promote    the lower bound of the gain is above the limit, and the new model is not below the best baseline
    keep       the upper bound is below the limit, or the new model is below the best baseline
    hold       the limit lies between the bounds: these users cannot tell. Or both models rank every case alike

The limit is `-promotion.margin`, or `promotion.min_gain` where that is set. Each bound is passed by chance with a probability
of 1 - `promotion.confidence`. **Nightly looks**: at .99 a year of nights brings 3.65 wrong verdicts if every candidate were
at the very limit, and hardly any where candidates are better or much worse. Allowing one in 20 years instead (Bonferroni over
a year at 5 %, .99986) asks for 2.4 times as many users, and models that age cost more than what a margin of one per cent can
lose. `promotion.seed_scatter` s widens the bounds: two trainings differ by s sqrt(2) by chance. It is given, or measured now
and then (`stages.scatter`).

Three preflights are made each night with the ranks at hand. A model against itself holds, ranks drawn from the whole
catalogue do not win, and the first rank everywhere wins. If one of them ends otherwise, nothing is promoted.

How often pairs of simulated models are promoted and kept, in per cent of 120 pairs, by the true relative gain of NDCG@20
(`benchmarks/promotion.py`; NDCG@20 is .05, log ranks of a case correlate by .9, a margin of 1 %; the rest hold):

                 -5%        -2%        -1%         0%        +2%        +5%       +10%       +20%
500 users      0 / 8.3   .8 / 3.3   .8 / 3.3   .8 / 2.5   2.5 / .8    7.5 / 0   22.5 / 0   82.5 / 0
5,000 users     0 / 43      0 / 5    0 / 1.7      5 / 0     23 / 0     78 / 0    100 / 0    100 / 0

At the limit of -1 % one per cent of each is meant; .4 and 2.5 per cent of these 240 pairs came out.

N cases, U users.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import torch
from scipy.special import ndtri

from modeling.config import PromotionConfig
from modeling.evaluation.bootstrap import Bootstrap
from modeling.evaluation.metrics import gains_of
from modeling.evaluation.rank_table import CASE, RANK, USER
from modeling.evaluation.slices import user_numbers
from schemas.errors import InputError

LEAST_USERS = 10  # with fewer, no interval says anything
MOST_NEEDED = 10**9
LEAST_LIMIT = (
    1e-6  # below 0: a model that is always right is not above another that nearly is, whichever users are drawn
)
SHUFFLE_SEED = 5
Verdict = Literal["promote", "keep", "hold"]


@dataclass(frozen=True)
class Difference:
    """How much better a metric of the new model is than that of the old, on the same cases: relative, so .01 is one per cent.

    Where the old one is 0, gain and bounds are those of the new metric itself.
    """

    new: float
    old: float
    gain: float
    low: float  # bounds of the gain, what seeds may do included
    high: float
    below: float  # how far the bounds are from the gain by the choice of users alone
    above: float
    seeds: float  # how far by seeds
    users: int
    differing: int  # cases in which the models differ


class Pairs:
    """Ranks of two models for the same cases."""

    def __init__(self, new_N: np.ndarray, old_N: np.ndarray, users: np.ndarray | Bootstrap) -> None:
        """Ranks, and the number of each case's user, from 0, or draws of these users."""
        self.new_N, self.old_N = new_N, old_N
        self.bootstrap = users if isinstance(users, Bootstrap) else Bootstrap(users)

    @classmethod
    def of(cls, new: pl.DataFrame, old: pl.DataFrame) -> Pairs:
        """The cases that are in both tables of ranks, as `rank_table.read_ranks` gives them.

        Raises:
            InputError: when they have no case in common, or one has another user.
        """
        both = new.select(CASE, USER, RANK).join(old.select(CASE, USER, RANK), on=CASE, maintain_order="left")
        if not len(both) or not (both[USER] == both[f"{USER}_right"]).all():
            raise InputError("the two models were not measured on the same test cases")
        new_N, old_N = (both[name].to_numpy(writable=True) for name in (RANK, f"{RANK}_right"))
        return cls(new_N, old_N, user_numbers(both[USER]))

    def against(self, new_N: np.ndarray, old_N: np.ndarray) -> Pairs:
        """Other ranks for the same cases."""
        return Pairs(new_N, old_N, self.bootstrap)

    def difference(self, metric: str, confidence: float, seed_scatter: float = 0.0) -> Difference:
        """Of a metric named as in `ndcg@20`."""
        new_N, old_N = (gains_of(metric, torch.from_numpy(rank_N)).numpy() for rank_N in (self.new_N, self.old_N))
        new_U, old_U = self.bootstrap.sums(new_N), self.bootstrap.sums(old_N)
        new, old, tail = float(new_N.mean()), float(old_N.mean()), 1 - confidence
        gain = new / old - 1 if old else new
        if old:
            low, high = self.bootstrap.gain_interval(new_U, old_U, tail)
        else:
            low, high = (float(bound_M[0]) for bound_M in self.bootstrap.intervals(new_U[:, None], tail))
        below, above = max(gain - low, 0.0), max(high - gain, 0.0)
        seeds = float(ndtri(confidence)) * math.sqrt(2) * seed_scatter
        return Difference(
            new=new,
            old=old,
            gain=gain,
            low=gain - math.hypot(below, seeds),
            high=gain + math.hypot(above, seeds),
            below=below,
            above=above,
            seeds=seeds,
            users=self.bootstrap.num_users,
            differing=int((new_N != old_N).sum()),
        )


def verdict_of(difference: Difference, least: float) -> Verdict:
    """What the bounds say of a relative gain of `least`; few users hold, and so do two models that rank every case alike."""
    if difference.users < LEAST_USERS or not difference.differing:
        return "hold"
    if difference.low > least and difference.new > 0:
        return "promote"
    return "keep" if difference.high < least else "hold"


def users_needed(difference: Difference, least: float) -> int | None:
    """About how many users would settle the verdict, if the models differ as much as here; None: no number would."""
    away = difference.gain - least
    spread = difference.below if away > 0 else difference.above
    room = away * away - difference.seeds * difference.seeds
    if room <= 0 or spread <= 0:
        return None
    needed = difference.users * spread * spread / room
    return max(math.ceil(needed), LEAST_USERS) if needed < MOST_NEEDED else None


def preflights(pairs: Pairs, promotion: PromotionConfig, catalogue: int) -> list[str]:
    """What ended otherwise than it must, a clause each; empty where the comparison can be trusted."""
    new_N, first_N = pairs.new_N, np.ones(len(pairs.new_N))
    drawn_N = np.random.default_rng(SHUFFLE_SEED).integers(1, max(catalogue, 1) + 1, len(new_N)).astype(np.float64)

    def decided(one_N: np.ndarray, other_N: np.ndarray, margin: float = promotion.margin) -> tuple[Verdict, Difference]:
        difference = pairs.against(one_N, other_N).difference(promotion.metric, promotion.confidence)
        return verdict_of(difference, -margin), difference

    failed = []
    if (verdict := decided(new_N, new_N)[0]) != "hold":
        failed.append(f"the new model against itself ends with {verdict} instead of hold")
    verdict, difference = decided(drawn_N, new_N)
    if verdict == "promote":
        figures = f"{difference.new:.4f} against {difference.old:.4f}"
        what = f"ranks drawn by chance from {catalogue:,} items are no worse than the new model's"
        failed.append(f"{what} ({figures})")
    verdict, difference = decided(first_N, new_N, max(promotion.margin, LEAST_LIMIT))
    if verdict != "promote" and difference.differing:
        failed.append(f"a model that is always right ends with {verdict} instead of promote")
    return failed
