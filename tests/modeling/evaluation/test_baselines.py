"""Each baseline on sessions small enough to count by hand."""

from __future__ import annotations

import pytest
import torch

from modeling.evaluation import baselines
from modeling.evaluation.baselines.item_knn import ItemKNN
from modeling.evaluation.baselines.last_day_popularity import LastDayPopularity
from modeling.evaluation.baselines.markov import Markov
from modeling.evaluation.baselines.popularity import Popularity
from modeling.evaluation.ranking import ranks, top_k
from modeling.splits import Cases
from schemas import plugins
from tests.conftest import sessions_of

TRAIN = sessions_of([[3, 4, 5], [3, 4], [6, 5], [2, 6]])
NEWEST = TRAIN.select(torch.tensor([3]))


def test_popularity_counts_training_events() -> None:
    scorer = Popularity(TRAIN, NEWEST, 5)
    assert scorer.queries(sessions_of([[3], [4]])).tolist() == [[2, 2, 2, 2, 0]] * 2


def test_last_day_popularity_counts_the_newest() -> None:
    assert LastDayPopularity(TRAIN, NEWEST, 5).queries(sessions_of([[3]])).tolist() == [[0, 0, 0, 1, 0]]


def test_markov_counts_what_followed_then_popularity() -> None:
    scorer = Markov(TRAIN, NEWEST, 5)
    ids, _ = top_k(scorer, sessions_of([[5, 3], [3, 4], [2]]), 2)
    assert ids.tolist() == [[4, 3], [5, 3], [3, 4]]


def test_item_knn_ranks_what_shared_sessions() -> None:
    scorer = ItemKNN(TRAIN, NEWEST, 5)
    scores = scorer.queries(sessions_of([[3], [2]]))
    assert scores[0].argmax() == 1  # item 4 was in both sessions of item 3
    assert scores[0, 0] < 0 and scores[0, 4] < 0, "no session has them together"
    assert scores[1].argmax() == 3, "of an unknown item nothing is known: the newest day's popularity"


@pytest.mark.parametrize("name", plugins.names(baselines))
def test_every_baseline_ranks(name: str) -> None:
    scorer = plugins.find(baselines, name)(TRAIN, NEWEST, 5)
    cases = Cases(sessions_of([[3], [4, 6], [3], [3]]), torch.tensor([4, 5, 7, 3]))
    rank = ranks(scorer, cases, filter_seen=True)
    assert ((rank[:2] >= 1) & (rank[:2] <= 3)).all()
    assert rank[2:].isinf().all(), "no training event has item 7, and the history has item 3"
    ids, _ = top_k(scorer, cases.history, 5)
    assert sorted(ids[0].tolist()) == [0, 3, 4, 5, 6]
