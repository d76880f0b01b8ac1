"""Click rates with intervals: Wilson's, with as many impressions as they are worth where users differ.

Impressions of one user are alike, so n of them say less than n of n users. They count as n / max(1, v / w): v is the variance
with users drawn, w that of n coins (Dean and Pagano, "Evaluating Confidence Interval Methods for Binomial Proportions in
Clustered Surveys", Journal of Survey Statistics and Methodology 3(4), 2015). These intervals are of one look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from modeling.service.tracking.always_valid import ALPHA, Difference, difference, ratio_variance
from modeling.service.tracking.split import A, B
from modeling.service.tracking.table import CLICKED, SHOWN, UNIT

Z = 1.959964  # 95 %


@dataclass(frozen=True)
class Rate:
    """Items shown and clicked of one group; rate and bounds are shares of those shown."""

    group: str
    shown: int
    clicked: int
    users: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """Two models that were shown at the same time; `days` is the difference by the end of each day."""

    models: tuple[str, str]
    salt: str
    total: Difference
    days: tuple[tuple[str, Difference], ...]


def counts_by(shown: pl.DataFrame, column: str) -> pl.DataFrame:
    """Rows of `table.shown_items` -> items shown and clicked by value of a column and user; those without a value left out."""
    rows = shown.drop_nulls(column).with_columns(pl.col(UNIT).fill_null(pl.col("recommendation_id")))
    return rows.group_by(column, UNIT).agg(pl.len().alias(SHOWN), pl.col(CLICKED).sum())


def rates_of(counts: pl.DataFrame, column: str) -> list[Rate]:
    """A rate for each value of a column, in its order. Counts of several parts may come one below the other."""
    per_user = _per_user(counts, column)
    return [
        _rate(str(value), users[SHOWN].to_numpy(), users[CLICKED].to_numpy())
        for (value,), users in per_user.group_by(column, maintain_order=True)
    ]


def _rate(group: str, shown: np.ndarray, clicked: np.ndarray) -> Rate:
    total, hits = float(shown.sum()), float(clicked.sum())
    rate = hits / total
    coins, drawn = rate * (1 - rate) / total, ratio_variance(shown, clicked)
    worth = total / max(1.0, drawn / coins) if coins and math.isfinite(drawn) else total
    low, high = wilson(rate, worth)
    return Rate(group, int(total), int(hits), len(shown), rate, low, high)


def wilson(rate: float, count: float) -> tuple[float, float]:
    """The bounds of a share of `count`."""
    grown = 1 + Z**2 / count
    middle = (rate + Z**2 / (2 * count)) / grown
    half = Z * math.sqrt(rate * (1 - rate) / count + Z**2 / (4 * count**2)) / grown
    return max(0.0, middle - half), min(1.0, middle + half)


def pair_counts(shown: pl.DataFrame) -> pl.DataFrame:
    """Rows of `table.shown_items` -> items shown and clicked by comparison, arm, user and day, with the newest time."""
    rows = shown.filter(pl.col("arm").is_in([A, B]) & pl.col(UNIT).is_not_null())
    rows = rows.with_columns(
        pl.when(pl.col("arm") == A).then("model").otherwise("against").alias("first"),
        pl.when(pl.col("arm") == A).then("against").otherwise("model").alias("second"),
        pl.col("salt").fill_null(""),
        pl.col("timestamp").dt.date().alias("day"),
    )
    return rows.group_by("first", "second", "salt", "arm", UNIT, "day").agg(
        pl.len().alias(SHOWN), pl.col(CLICKED).sum(), pl.col("timestamp").max()
    )


def pairs_of(counts: pl.DataFrame) -> list[Pair]:
    """The comparisons of two models that there were, the newest first. Counts may come one below the other."""
    found: list[tuple[datetime, Pair]] = []
    for (first, second, salt), part in counts.group_by("first", "second", "salt"):
        newest = part["timestamp"].sort()[-1]
        days = tuple(
            (str(day), difference_of(part.filter(pl.col("day") <= day))) for day in part["day"].unique().sort()
        )
        found.append((newest, Pair((str(first), str(second)), str(salt), difference_of(part), days)))
    return [pair for _, pair in sorted(found, key=lambda one: one[0], reverse=True)]


def difference_of(counts: pl.DataFrame, alpha: float = ALPHA, times: float = 1.0) -> Difference:
    """Rows of `pair_counts` of one comparison -> the difference of its arms, as `always_valid.difference` has it."""
    per_user = _per_user(counts, "arm")
    a, b = (per_user.filter(pl.col("arm") == arm) for arm in (A, B))
    seen = (a[SHOWN].to_numpy(), a[CLICKED].to_numpy(), b[SHOWN].to_numpy(), b[CLICKED].to_numpy())
    return difference(*seen, alpha, times)


def _per_user(counts: pl.DataFrame, column: str) -> pl.DataFrame:
    """Items shown and clicked by value of a column and user, in their order, so that the same counts sum to the same digit."""
    return counts.group_by(column, UNIT).agg(pl.col(SHOWN, CLICKED).sum().cast(pl.Float64)).sort(column, UNIT)
