"""Intervals by resampling users: how far a metric of these test cases may be from that of all users like them.

A user's cases depend on each other, so users are drawn, with all their cases (Field and Welsh, 2007, call it the cluster
bootstrap). The interval is BCa, bias-corrected and accelerated (Efron, 1987; as in `scipy.stats.bootstrap`), with the
acceleration from each user's influence on the mean instead of leaving users out one by one.

More users than `most_groups` are put into so many groups by chance, and groups are drawn: groups of independent users are
independent, so the interval is the same, at a price that no longer grows. Draws begin from a fixed seed: the same ranks give
the same interval.

N cases, U users or groups, M metrics, R resamples.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

RESAMPLES = 2000
MOST_GROUPS = 10_000
MOST_DRAWS = 2**21  # held at a time
SEED = 20_260
MOST_GAIN = 1e6


class Bootstrap:
    """Draws of users, the same for every metric that is asked about."""

    def __init__(self, user_N: np.ndarray, resamples: int = RESAMPLES, most_groups: int = MOST_GROUPS) -> None:
        """`user_N`: the number of each case's user, from 0."""
        self.resamples = resamples
        self.num_users = int(user_N.max()) + 1 if len(user_N) else 0
        rng = np.random.default_rng(SEED)
        if self.num_users > most_groups:
            user_N = (rng.permutation(self.num_users) % most_groups)[user_N]
        self.group_N, self.size = user_N, min(self.num_users, most_groups)
        self.cases_U = np.bincount(user_N, minlength=self.size).astype(np.float64)
        self._start = rng.bit_generator.state

    def sums(self, value_N: np.ndarray) -> np.ndarray:
        """The sum of each user's values, [U]."""
        return np.bincount(self.group_N, weights=value_N, minlength=self.size)

    def means(self, sum_UM: np.ndarray) -> np.ndarray:
        """The mean over cases of each metric in each resample, [R, M]."""
        rng = np.random.default_rng()
        rng.bit_generator.state = self._start
        parts = []
        rows = max(1, min(self.resamples, MOST_DRAWS // max(self.size, 1)))
        for first in range(0, self.resamples, rows):
            count = min(rows, self.resamples - first)
            drawn_RU = rng.integers(0, self.size, (count, self.size))
            drawn_RU += np.arange(count)[:, None] * self.size
            times_RU = np.bincount(drawn_RU.ravel(), minlength=count * self.size).reshape(count, self.size)
            times_RU = times_RU.astype(np.float64)
            parts.append((times_RU @ sum_UM) / (times_RU @ self.cases_U)[:, None])
        return np.concatenate(parts)

    def intervals(self, sum_UM: np.ndarray, tail: float) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of the mean of each metric, [M] and [M], with the chance `tail` beyond each."""
        mean_M = sum_UM.sum(0) / self.cases_U.sum()
        return _bounds(mean_M, self.means(sum_UM), sum_UM - mean_M * self.cases_U[:, None], tail)

    def gain_interval(self, new_U: np.ndarray, old_U: np.ndarray, tail: float) -> tuple[float, float]:
        """The bounds of new / old - 1, of the sums of two metrics by user; a resample without any of the old gains a lot."""
        gain = new_U.sum() / old_U.sum() - 1
        new_R, old_R = self.means(np.stack([new_U, old_U], 1)).T
        with np.errstate(divide="ignore", invalid="ignore"):
            gain_R = np.nan_to_num(new_R / old_R - 1, nan=0.0, posinf=MOST_GAIN)
        influence_U = new_U - (1 + gain) * old_U
        low_M, high_M = _bounds(np.array([gain]), gain_R[:, None], influence_U[:, None], tail)
        return float(low_M[0]), float(high_M[0])


def _bounds(
    value_M: np.ndarray, drawn_RM: np.ndarray, influence_UM: np.ndarray, tail: float
) -> tuple[np.ndarray, np.ndarray]:
    """The BCa bounds of statistics, from their values, what resamples gave, and each user's influence on them."""
    drawn_RM = np.sort(drawn_RM, axis=0)
    squares_M = np.square(influence_UM).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        bend_M = np.nan_to_num(np.power(influence_UM, 3).sum(0) / (6 * squares_M**1.5))
    close_M = 1e-12 * np.maximum(np.abs(value_M), np.abs(drawn_RM).max(0))  # equal but for rounding
    below_M = (drawn_RM < value_M - close_M).mean(0) + 0.5 * (np.abs(drawn_RM - value_M) <= close_M).mean(0)
    least = 0.5 / len(drawn_RM)
    shift_M = ndtri(np.clip(below_M, least, 1 - least))
    low, high = (_quantile(drawn_RM, shift_M, bend_M, ndtri(chance)) for chance in (tail, 1 - tail))
    return low, high


def _quantile(drawn_RM: np.ndarray, shift_M: np.ndarray, bend_M: np.ndarray, normal: float) -> np.ndarray:
    """The BCa quantile of sorted resamples, [M]."""
    moved_M = shift_M + normal
    chance_M = ndtr(shift_M + moved_M / (1 - bend_M * moved_M))
    place_M = np.clip(chance_M, 0, 1) * (len(drawn_RM) - 1)
    lower_M = np.floor(place_M).astype(int)
    upper_M, share_M = np.minimum(lower_M + 1, len(drawn_RM) - 1), place_M - lower_M
    column_M = np.arange(drawn_RM.shape[1])
    bounds: np.ndarray = drawn_RM[lower_M, column_M] * (1 - share_M) + drawn_RM[upper_M, column_M] * share_M
    return bounds
