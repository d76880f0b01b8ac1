"""Lists of the best items against a stable sort of all scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling.evaluation import candidates, lists
from modeling.evaluation.ranking import ranks, top_k
from modeling.evaluation.scorer import BLOCK
from modeling.scoring import ModelScorer
from modeling.splits import Cases
from schemas.columns import FIRST_ID
from tests.conftest import model_of, random_sessions, sessions_of
from tests.modeling.evaluation.scorers import Table, Vectors
from tests.slow import examples


def test_scores_that_are_not_finite_are_not_recommended() -> None:
    with pytest.raises(FloatingPointError, match="diverged"):
        top_k(Table(torch.tensor([[torch.nan, 1.0]])), sessions_of([[3]]), 1)


@pytest.mark.parametrize("num_items", [5, 30_000])
def test_of_equal_scores_the_lower_id_is_recommended_first(num_items: int) -> None:
    scores = torch.ones(2, num_items)
    scores[1, -1] = 2.0
    noise = torch.rand(2, num_items, generator=torch.Generator().manual_seed(1)) * 5e-7
    for scorer in (Table(scores), Table(scores + noise)):
        ids, best = top_k(scorer, sessions_of([[3], [4]]), 3)
        assert ids.tolist() == [[3, 4, 5], [num_items + 2, 3, 4]]
        assert len(set(best[0].tolist())) == 1, "items that tie have one score"


@examples(50)
@given(
    rows=st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=5),
    k=st.integers(1, 9),
    filter_seen=st.booleans(),
)
def test_lists_are_those_of_a_stable_sort(rows: list[list[int]], k: int, filter_seen: bool) -> None:
    histories = sessions_of([[3 + sum(row) % 7] for row in rows])
    ids, best = top_k(Table(torch.tensor(rows).float()), histories, k, filter_seen=filter_seen)
    assert ids.shape == (len(rows), min(k, 7))
    for row, (scores, history) in enumerate(zip(rows, histories.items.tolist(), strict=True)):
        order = sorted(range(7), key=lambda column: -scores[column])
        wanted = [column + FIRST_ID for column in order if not (filter_seen and column + FIRST_ID == history)]
        assert ids[row][ids[row] > 0].tolist() == wanted[:k]
        assert best[row].tolist() == sorted(best[row].tolist(), reverse=True)


def test_a_list_may_be_longer_than_the_catalogue_and_than_a_tile() -> None:
    scores = torch.rand(3, 20_000, generator=torch.Generator().manual_seed(1))
    for k in (15_000, 20_000, 10**6):
        ids, best = top_k(Table(scores), sessions_of([[3], [4], [5]]), k)
        assert ids.shape == best.shape == (3, min(k, 20_000))
        assert (best.diff(dim=1) <= 0).all() and all(len(set(row)) == len(row) for row in ids.tolist())
        assert (ids[:, 0] - FIRST_ID).tolist() == scores.argmax(1).tolist()


def test_evaluation_agrees_with_recommendation() -> None:
    model = model_of("sasrec", num_items=40)
    sessions = random_sessions(50, 40, 4)
    cases = Cases(sessions.drop_last(1), sessions.item_from_end(0))
    for filter_seen in (False, True):
        ids, _ = top_k(ModelScorer(model), cases.history, 10, filter_seen=filter_seen)
        place = (ids == cases.target[:, None]).int().argmax(1) + 1
        rank = ranks(ModelScorer(model), cases, filter_seen=filter_seen)
        inside = (ids == cases.target[:, None]).any(1)
        assert (inside == (rank <= 10)).all()
        assert (place == rank)[inside].all()
        assert filter_seen == bool(rank.isinf().any())


@examples(40)
@given(
    seed=st.integers(0, 1000),
    k=st.sampled_from([1, 3, 20, 70, 100, 300, 1000]),
    tiles_held=st.sampled_from([1, 2, 100]),
    order=st.sampled_from(["random", "rising", "falling", "few values", "equal"]),
    num_items=st.sampled_from([4 * BLOCK + 1, 5 * BLOCK, 5 * BLOCK + 17]),
    filter_seen=st.booleans(),
)
def test_lists_that_open_groups_only_are_those_of_a_stable_sort(
    seed: int, k: int, tiles_held: int, order: str, num_items: int, filter_seen: bool
) -> None:
    """For orders of scores along the ids: where each tile is better than all before it, and where all tie."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "HELD", tiles_held * 2 * BLOCK)  # Table takes two histories at a time
        _compare_with_a_stable_sort(seed, k, order, num_items, filter_seen)


def _compare_with_a_stable_sort(seed: int, k: int, order: str, num_items: int, filter_seen: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(3, num_items, generator=generator)
    if order in ("rising", "falling"):
        scores = scores.sort(1, descending=order == "falling").values
    if order in ("few values", "equal"):
        scores = (scores * (3 if order == "few values" else 0)).floor()
    rankable = (torch.rand(num_items, generator=generator) < 0.9).tolist()
    seen = (torch.randperm(num_items, generator=generator)[:3] + FIRST_ID).tolist()
    histories = sessions_of([seen, [seen[0]], [seen[1], seen[2]]])
    exact = scores.double() * 1e4  # no two random scores tie
    ids, best = top_k(
        Table((exact if order == "random" else scores).float(), rankable), histories, k, filter_seen=filter_seen
    )
    for row, history in enumerate((seen, [seen[0]], [seen[1], seen[2]])):
        hidden = {column for column in range(num_items) if not rankable[column]}
        hidden |= {item - FIRST_ID for item in history} if filter_seen else set()
        values = scores[row].tolist()
        wanted = sorted(
            (column for column in range(num_items) if column not in hidden), key=lambda column: -values[column]
        )
        if order in ("few values", "equal"):
            assert (ids[row] - FIRST_ID).tolist() == wanted[:k]
        else:
            assert sorted(values[column] for column in (ids[row] - FIRST_ID).tolist()) == pytest.approx(
                sorted(values[column] for column in wanted[:k]), abs=1e-5
            )
        assert best[row].tolist() == sorted(best[row].tolist(), reverse=True)


def test_few_groups_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The price of a list, as a count: of 4,096 groups 74 are opened for a list of 20, and only those of the first eight tiles
    when the scores of all histories are no longer in the second cache. A room holds 8 tiles at most."""
    opened, rooms = {"held": 0, "at once": 0}, []
    take, room = candidates.Candidates._take, candidates.Room

    def counted(self: candidates.Candidates, *of: Any) -> None:
        opened["at once" if self.at_once else "held"] += len(of[1])
        take(self, *of)

    monkeypatch.setattr(candidates.Candidates, "_take", counted)
    monkeypatch.setattr(lists, "Room", lambda *of: rooms.append(room(*of)) or rooms[-1])
    monkeypatch.setattr(candidates, "HELD", 8 * 32 * BLOCK)
    scores = torch.rand(32, 64 * BLOCK, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(Table, "chunk", 32)
    top_k(Table(scores), sessions_of([[3]] * 32), 20)
    assert [len(held.scores_WNT) for held in rooms] == [8]
    assert 20 * 32 < opened["held"] < 36 * 32 and 30 * 32 < opened["at once"] < 60 * 32


@pytest.mark.parametrize("k", [1, 2, 5])
def test_items_that_tie_at_a_score_of_zero_are_listed_by_their_ids(k: int) -> None:
    torch.manual_seed(5)
    x_NE, y_VE = torch.randn(40, 32), torch.randn(6000, 32)
    items_VE = torch.cat([torch.full((6000, 1), -30.0), y_VE, -y_VE], 1)
    best = [150, 443, 2474, 3001, 4554, 5990][: k + 1]
    items_VE[best, 0] = 0  # all of them score zero but for rounding, of which they have plenty
    scorer = Vectors(torch.cat([torch.ones(40, 1), x_NE, x_NE], 1), items_VE)
    expected = [column + FIRST_ID for column in best[:k]]
    assert top_k(scorer, sessions_of([[3]] * 40), k)[0].tolist() == [expected] * 40
