"""Which trials of a search are cut short: those significantly behind the rest, not those whose validation is low by chance.

Once a third of its training is done, a trial is compared with the one that has the median validation of those trained to their
end, at the same epoch and case by case: both were asked the same. It is cut short where the mean difference lies below zero
with its whole interval (one side, `CHANCE`). With few cases the interval is wide, so that little is cut short. How often
the rule cut short what would have been good, as replayed from recorded trials: modeling/LOG.md.

Trials validated by a metric that is no mean over cases (of a label) all run to their end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import optuna

CURVES = 4  # trials that run to their end before any is cut short
FIRST_SHARE = 1 / 3  # of its steps, in which none is: what learns late looks behind there (modeling/LOG.md)
CHANCE = 0.025  # that a trial as good as the median is cut short at a look
DIGITS = 4  # of what a case adds, as it is kept
Gains = Sequence[float]  # what each validation case adds to the metric


def gains_at(epoch: int) -> str:
    """The attribute of a trial that keeps its gains after an epoch."""
    return f"gains of epoch {epoch}"


def rest_at(study: optuna.Study, epoch: int) -> list[Gains]:
    """The gains after an epoch of all trials that were trained to their end."""
    from optuna.trial import TrialState

    trained = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial.user_attrs[gains_at(epoch)] for trial in trained if trial.user_attrs.get(gains_at(epoch))]


def is_behind(gains: Gains, rest: Sequence[Gains], share: float) -> bool:
    """Whether a trial is behind the median of the rest, after a share of its steps, by more than chance explains."""
    from modeling.evaluation.bootstrap import Bootstrap

    alike = sorted((trained for trained in rest if len(trained) == len(gains)), key=sum)
    if not gains or len(alike) < CURVES or share <= FIRST_SHARE:
        return False
    change_N = np.asarray(gains) - np.asarray(alike[(len(alike) - 1) // 2])
    if change_N.mean() >= 0:
        return False
    bootstrap = Bootstrap(np.arange(len(change_N)))
    _, high_M = bootstrap.intervals(bootstrap.sums(change_N)[:, None], CHANCE)
    return bool(high_M[0] < 0)
