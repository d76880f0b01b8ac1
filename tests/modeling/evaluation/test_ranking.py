"""Ranks and top-k against a slow, plain computation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import ranks, top_k
from modeling.scoring import ModelScorer
from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID
from tests.conftest import model_of, random_sessions, sessions_of


class Table:
    """A scorer that knows its scores."""

    chunk = 2

    def __init__(self, scores_NV: torch.Tensor) -> None:
        self.scores_NV, self.num_items, self.next = scores_NV, scores_NV.shape[1], 0

    def queries(self, histories: Sessions) -> torch.Tensor:
        rows = self.scores_NV[self.next : self.next + len(histories)]
        self.next += len(histories)
        return rows

    def tile(self, queries: torch.Tensor, first: int, last: int) -> torch.Tensor:
        return queries[:, first:last].clone()

    def of_targets(self, queries: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
        return queries.gather(1, target_N[:, None])[:, 0]


def cases_of(histories: list[list[int]], targets: list[int]) -> Cases:
    return Cases(sessions_of(histories), torch.tensor(targets))


def test_rank_counts_better_items_and_half_of_the_equal_ones() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.5, 0.1], [1.0, 1.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
    cases = cases_of([[3], [3], [3]], [4, 5, 6])
    assert ranks(Table(scores), cases).tolist() == [2.5, 2.5, 1.0]


def test_seen_items_are_not_ranked_but_a_seen_target_stays() -> None:
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
    cases = cases_of([[3, 4, 3], [3, 6]], [5, 6])
    assert ranks(Table(scores), cases, filter_seen=True).tolist() == [1.0, 3.0]
    ids, _ = top_k(Table(scores), cases.history, 3, filter_seen=True)
    assert ids.tolist() == [[5, 6, 0], [4, 5, 0]]


def test_a_target_outside_the_catalogue_is_a_miss() -> None:
    assert ranks(Table(torch.rand(1, 4)), cases_of([[3]], [2])).tolist() == [torch.inf]


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FloatingPointError, match="diverged"):
        ranks(Table(torch.tensor([[torch.nan, 1.0]])), cases_of([[3]], [3]))


def test_of_equal_scores_the_lower_id_is_recommended_first() -> None:
    ids, _ = top_k(Table(torch.ones(1, 5)), sessions_of([[3]]), 3)
    assert ids.tolist() == [[3, 4, 5]]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), filter_seen=st.booleans())
def test_tiled_model_ranks_equal_plain_ones(seed: int, filter_seen: bool) -> None:
    model = model_of("sasrec", num_items=5000)  # more than one tile
    sessions = random_sessions(20, 5000, seed)
    cases = Cases(sessions.drop_last(1), sessions.item_from_end(0))
    scorer = ModelScorer(model)
    with torch.no_grad():
        scores = scorer.queries(cases.history).double() @ scorer.items_VE.double().T
    if filter_seen:
        for row in range(len(sessions)):
            start, length = int(cases.history.starts[row]), int(cases.history.lengths[row])
            seen = sessions.items[start : start + length].long() - FIRST_ID
            scores[row, seen[seen != cases.target[row] - FIRST_ID]] = -torch.inf
    target = scores.gather(1, cases.target[:, None] - FIRST_ID)
    expected = 1 + (scores > target).sum(1)
    found = ranks(scorer, cases, filter_seen=filter_seen)
    assert (found - expected).abs().max() <= 1  # float32 near-ties
    assert (found == expected).float().mean() > 0.9


def test_evaluation_agrees_with_recommendation() -> None:
    model = model_of("sasrec", num_items=200)
    sessions = random_sessions(50, 200, 4)
    cases = Cases(sessions.drop_last(1), sessions.item_from_end(0))
    for filter_seen in (False, True):
        ids, _ = top_k(ModelScorer(model), cases.history, 10, filter_seen=filter_seen)
        place = (ids == cases.target[:, None]).int().argmax(1) + 1
        rank = ranks(ModelScorer(model), cases, filter_seen=filter_seen)
        inside = (ids == cases.target[:, None]).any(1)
        seen_target = torch.tensor([
            bool((sessions.items[s : s + n - 1] == sessions.items[s + n - 1]).any())
            for s, n in zip(sessions.starts.tolist(), sessions.lengths.tolist(), strict=True)
        ])  # fmt: skip
        comparable = ~seen_target if filter_seen else torch.ones_like(inside)
        assert (inside == (rank <= 10))[comparable].all()
        assert (place == rank)[inside & comparable].all()


def test_metrics_by_hand() -> None:
    found = metrics_at(torch.tensor([1.0, 3.0, 11.0, torch.inf]), (5, 10))
    assert found["recall@5"] == found["hitrate@5"] == 0.5
    assert found["precision@5"] == pytest.approx(0.1)
    assert found["mrr@10"] == found["map@10"] == pytest.approx((1 + 1 / 3) / 4)
    assert found["ndcg@10"] == pytest.approx((1 + 0.5) / 4)
