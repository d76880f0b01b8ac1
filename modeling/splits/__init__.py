"""Which sessions a model is fit on, which cases choose and which judge it, and the labels that training and a test ask about.

`folds(sessions, config)` lists the folds of a split; a fold reads its own training sessions and cases. What a night trains and
is tested on is the newest fold: `split_sessions`.
"""

from modeling.splits.cases import Cases, hide_last, label_cases, spread, trained_items, training_labels
from modeling.splits.folds import Fold, Split, folds, replay_then_newest, split_sessions

__all__ = [
    "Cases",
    "Fold",
    "Split",
    "folds",
    "hide_last",
    "label_cases",
    "replay_then_newest",
    "split_sessions",
    "spread",
    "trained_items",
    "training_labels",
]
