"""Metrics of ranks with intervals, of all cases and of parts of them: how long the history, how old the item, who the user is.

N cases, U users, M metrics.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import torch

from modeling.evaluation.bootstrap import Bootstrap
from modeling.evaluation.metrics import gains_of
from modeling.evaluation.rank_table import AGE, HISTORY, POPULARITY, RETURNING, USER, RankTable

CONFIDENCE = 0.95
RESAMPLES, MOST_GROUPS = 1000, 2000  # enough to be read: of a verdict more are drawn
METHOD = f"BCa bootstrap by user, {RESAMPLES:,} resamples"
INTERVALS = ("recall", "mrr", "ndcg")  # the rest are these, or a k-th of recall
LENGTHS = {"1": 1, "2 to 4": 4, "5 to 9": 9, "10 to 49": 49, "50 and more": np.inf}
AGES = {"under a day": 1, "1 to 7 days": 7, "7 to 30 days": 30, "30 days and more": np.inf}  # less than
Bounds = (
    list[float] | None
)  # the lower and the upper; None where every case adds the same, so that nothing can be drawn


def user_numbers(users: pl.Series) -> np.ndarray:
    """The user of each case as a number from 0, int64 of shape [N]."""
    numbers = users.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    return numbers - numbers.min() if len(numbers) else numbers


def intervals(table: RankTable, cutoffs: tuple[int, ...]) -> dict[str, Any]:
    """By scorer and metric the bounds between which the metric of all users lies, with `CONFIDENCE`; and of how many users.

    {"confidence": 0.95, "method": "...", "users": 2, "metrics": {"sasrec": {"recall@20": [0.1, 0.3], ...}}}
    """
    facts: dict[str, Any] = {"confidence": CONFIDENCE, "method": METHOD, "users": 0, "metrics": {}}
    if not len(table.about):
        return facts
    bootstrap = Bootstrap(user_numbers(table.about[USER]), RESAMPLES, MOST_GROUPS)
    names = [f"{name}@{k}" for k in cutoffs for name in INTERVALS]
    columns = [bootstrap.sums(_gains(name, rank_N)) for rank_N in table.ranks.values() for name in names]
    lows, highs = bootstrap.intervals(np.stack(columns, 1), (1 - CONFIDENCE) / 2)
    bounds = iter(map(_bounds, lows.tolist(), highs.tolist()))
    for scorer in table.ranks:
        by_name = {name: next(bounds) for name in names}
        for k in cutoffs:
            recall = by_name[f"recall@{k}"]
            by_name |= {f"hitrate@{k}": recall, f"map@{k}": by_name[f"mrr@{k}"]}
            by_name[f"precision@{k}"] = recall and [bound / k for bound in recall]
        facts["metrics"][scorer] = by_name
    return facts | {"users": bootstrap.num_users}


def slices(table: RankTable, k: int) -> list[dict[str, Any]]:
    """Parts of the cases, each with recall@k and ndcg@k of every scorer, and the model's interval of ndcg@k.

    {"slice": "history length", "part": "2 to 4", "cases": 9, "users": 8, "metrics": {"sasrec": {"recall@20": 0.2, ...}, ...},
    "interval": [0.1, 0.3]}
    """
    if not len(table.about):
        return []
    user_N = user_numbers(table.about[USER])
    gains = {
        scorer: {name: _gains(f"{name}@{k}", rank_N) for name in ("recall", "ndcg")}
        for scorer, rank_N in table.ranks.items()
    }
    rows = []
    for name, part, chosen_N in _parts(table.about):
        if not chosen_N.any():
            continue
        _, user_C = np.unique(user_N[chosen_N], return_inverse=True)
        bootstrap = Bootstrap(user_C, RESAMPLES, MOST_GROUPS)
        model = next(iter(gains.values()))
        low, high = bootstrap.intervals(bootstrap.sums(model["ndcg"][chosen_N])[:, None], (1 - CONFIDENCE) / 2)
        measured = {
            scorer: {f"{metric}@{k}": float(value_N[chosen_N].mean()) for metric, value_N in of.items()}
            for scorer, of in gains.items()
        }
        counts = {"cases": int(chosen_N.sum()), "users": bootstrap.num_users}
        bounds = _bounds(float(low[0]), float(high[0]))
        rows.append({"slice": name, "part": part, **counts, "metrics": measured, "interval": bounds})
    return rows


def _bounds(low: float, high: float) -> Bounds:
    return None if math.isclose(low, high, rel_tol=1e-9) else [low, high]


def _gains(metric: str, rank_N: np.ndarray) -> np.ndarray:
    return gains_of(metric, torch.from_numpy(rank_N)).numpy()


def _parts(about: pl.DataFrame) -> list[tuple[str, str, np.ndarray]]:
    """(slice, part, which cases) of all parts; a case of which a slice does not know is in none of its parts."""
    lengths = about[HISTORY].to_numpy().astype(np.float64)
    ages = about[AGE].cast(pl.Float64).fill_null(np.nan).to_numpy()
    parts = [("history length", *part) for part in _between(lengths, LENGTHS, inclusive=True)]
    parts += [("age of the item", *part) for part in _between(ages, AGES, inclusive=False)]
    popularity = about[POPULARITY].to_numpy().astype(np.float64)
    cuts = np.unique(np.quantile(popularity, (1 / 3, 2 / 3), method="inverted_cdf")).tolist()
    starts = [0, *(int(cut) + 1 for cut in cuts)]
    names = [f"{first} to {int(last)}" for first, last in zip(starts, cuts, strict=False)] + [f"{starts[-1]} and more"]
    edges = dict(zip(names, [*cuts, np.inf], strict=True))
    parts += [("training events of the item", *part) for part in _between(popularity, edges, inclusive=True)]
    returning = about[RETURNING].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return [*parts, ("user", "new", returning == 0), ("user", "returning", returning == 1)]


def _between(value_N: np.ndarray, edges: dict[str, float], *, inclusive: bool) -> list[tuple[str, np.ndarray]]:
    """(part, which values) of parts that end at these edges, in order."""
    parts, before_N = [], np.isnan(value_N)
    for name, edge in edges.items():
        upto_N = (value_N <= edge) if inclusive else (value_N < edge) | np.isinf(edge) & ~np.isnan(value_N)
        parts.append((name, upto_N & ~before_N))
        before_N = before_N | upto_N
    return parts
