"""The difference of two click rates with an interval that holds at all times at once, however often somebody looks.

Users are drawn to one of two models, so users are what varies: of each the impressions and clicks are added up, a rate is the
clicks of all over the impressions of all, and its variance is that of a ratio of means (the delta method; Deng, Knoblich and
Lu, 2018, https://arxiv.org/abs/1803.06336). The interval is an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha,
Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52(6), 2024,
https://arxiv.org/abs/2103.06476, Theorem 2.2), with t users in both arms, s the standard deviation of one user's part, and r
chosen so that it is narrowest at `NARROWEST` users:

    estimate +- s * sqrt(2 * (t * r^2 + 1) / (t^2 * r^2) * log(sqrt(t * r^2 + 1) / alpha))

It is wider than one that is looked at once, about 1.6 times at NARROWEST users. Where no model is better, all looks together
find one in `alpha` of all comparisons or fewer, as tests/modeling/service/tracking/test_always_valid.py simulates. That holds
once there are enough users for their mean to be nearly normal: below `MIN_USERS` or `MIN_CLICKS` in an arm there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
NARROWEST = 2_000  # users in both arms
MIN_USERS, MIN_CLICKS = 100, 20  # in each arm
Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Click rates of two arms, and of b minus `times` a; bounds are None while there is too little to say."""

    users: tuple[int, int]
    rates: tuple[float, float]
    low: float | None
    high: float | None
    times: float = 1.0

    @property
    def estimate(self) -> float:
        """Rate of b minus `times` the rate of a."""
        return self.rates[1] - self.times * self.rates[0]

    @property
    def better(self) -> str:
        """a, b, or nothing where it is open."""
        if self.low is None or self.high is None:
            return ""
        return "b" if self.low > 0 else "a" if self.high < 0 else ""


def difference(
    shown_a: Counts, clicked_a: Counts, shown_b: Counts, clicked_b: Counts, alpha: float = ALPHA, times: float = 1.0
) -> Difference:
    """Impressions and clicks of each user of both arms so far -> the difference of their rates, b minus `times` a.

    With `times` .99 a difference above 0 says that b loses less than one per cent.
    """
    arms = ((shown_a, clicked_a), (shown_b, clicked_b))
    users = (len(shown_a), len(shown_b))
    rates = tuple(float(clicked.sum() / shown.sum()) if shown.sum() else 0.0 for shown, clicked in arms)
    pair = (rates[0], rates[1])
    if min(users) < MIN_USERS or min(clicked_a.sum(), clicked_b.sum()) < MIN_CLICKS:
        return Difference(users, pair, None, None, times)
    variance = times**2 * ratio_variance(*arms[0]) + ratio_variance(*arms[1])
    half = radius(sum(users), math.sqrt(variance * sum(users)), alpha)
    estimate = pair[1] - times * pair[0]
    return Difference(users, pair, estimate - half, estimate + half, times)


def ratio_variance(shown: Counts, clicked: Counts) -> float:
    """Of all clicks over all impressions, where users are drawn."""
    count, total = len(shown), float(shown.sum())
    if count < 2 or not total:
        return math.inf
    left = clicked - clicked.sum() / total * shown
    return float(left @ left) * count / (count - 1) / total**2


def radius(users: float, deviation: float, alpha: float = ALPHA, narrowest: float = NARROWEST) -> float:
    """Half the width of the interval of a mean over `users`, at any time."""
    r2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / narrowest
    grown = users * r2 + 1
    return deviation * math.sqrt(2 * grown / (users**2 * r2) * math.log(math.sqrt(grown) / alpha))
