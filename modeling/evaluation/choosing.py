"""The setting of a baseline, chosen from its small grid on validation cases, never on the test.

Chosen on what comes after: where sessions are split by days, the settings are tried on a fit of the sessions before the first
validation case, and the best is then fit on all training sessions. Work is bounded by counts, so that a night costs the same
again: `MOST_CASES` cases, and as many settings as the baseline's `grid` has.
"""

from __future__ import annotations

import math
from typing import Any

from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import ranks
from modeling.evaluation.scorer import Scorer
from modeling.sessions import DAY_MICROSECONDS, Sessions
from modeling.splits import Cases, Split, spread

MOST_CASES = 1000


def fit_best(kind: Any, split: Split, num_items: int, *, cutoff: int, filter_seen: bool) -> Scorer:
    """A baseline of class `kind`, fit on the training sessions with the setting of its `grid` that has the best NDCG@cutoff.

    Of equals the earlier in the grid. The first, its default, where there is nothing to choose from or by: no grid, no
    validation case, or no training session before the first of these.
    """
    known = split.validation.known()
    cases = known.select(spread(len(known.target), MOST_CASES))
    if len(getattr(kind, "grid", ())) < 2 or not len(cases.target):
        return _default(kind, split, num_items)
    before, newest = _before(split, cases)
    if not bool((before.lengths >= 2).any()):
        return _default(kind, split, num_items)
    scorer = kind(before, newest, num_items, trial=True)
    best, best_ndcg = kind.grid[0], -math.inf
    for setting in kind.grid:
        scorer.use(setting)
        ndcg = metrics_at(ranks(scorer, cases, filter_seen=filter_seen), (cutoff,))[f"ndcg@{cutoff}"]
        if ndcg > best_ndcg:
            best, best_ndcg = setting, ndcg
    chosen: Scorer = kind(split.train, split.last_day, num_items, setting=best)
    return chosen


def _default(kind: Any, split: Split, num_items: int) -> Scorer:
    scorer: Scorer = kind(split.train, split.last_day, num_items)
    return scorer


def _before(split: Split, cases: Cases) -> tuple[Sessions, Sessions]:
    """Training sessions that ended before the first of the cases did, and the newest day of these.

    All of training where histories are cut by their last items: what is hidden in them comes after all that is not.
    """
    if split.last_day is split.train:
        return split.train, split.train
    before = split.train.select(split.train.end < cases.history.end.min())
    newest = before.end.max() - DAY_MICROSECONDS if len(before) else 0
    return before, before.select(before.end > newest)
