"""Ranks and top-k against a slow, plain computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling import scoring
from modeling.evaluation import candidates, lists
from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import ranks, top_k
from modeling.evaluation.scorer import BLOCK
from modeling.scoring import ModelScorer, VectorScorer
from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID
from tests.conftest import model_of, random_sessions, sessions_of
from tests.slow import examples


class Table:
    """A scorer that reads the scores of the n-th of `sessions_of` from row n."""

    chunk = 2

    def __init__(self, scores_NV: torch.Tensor, rankable: list[bool] | None = None) -> None:
        self.scores_NV, self.num_items = scores_NV, scores_NV.shape[1]
        self.rankable_V = torch.tensor(rankable or [True] * self.num_items)

    def queries(self, histories: Sessions) -> torch.Tensor:
        return self.scores_NV[histories.end // 1_000_000]

    def tile(self, queries: torch.Tensor, first: int, last: int, out: torch.Tensor | None = None) -> torch.Tensor:
        return queries[:, first:last].clone() if out is None else out.copy_(queries[:, first:last])

    def scores(self, queries: torch.Tensor, column_NK: torch.Tensor) -> torch.Tensor:
        return queries.gather(1, column_NK)

    def relative(self, queries: torch.Tensor, score_N1: torch.Tensor, rounding_N1: torch.Tensor) -> None:
        """None: scores are compared as they are."""

    def rounding(self, queries: torch.Tensor, column_NK: torch.Tensor) -> torch.Tensor:
        return torch.full(column_NK.shape, 1e-6)


def cases_of(histories: list[list[int]], targets: list[int]) -> Cases:
    return Cases(sessions_of(histories), torch.tensor(targets))


def test_rank_counts_better_items_and_half_of_the_equal_ones() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.5, 0.1], [1.0, 1.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
    cases = cases_of([[3], [3], [3]], [4, 5, 6])
    assert ranks(Table(scores), cases).tolist() == [2.5, 2.5, 1.0]


def test_seen_items_are_not_ranked_and_a_seen_target_is_a_miss() -> None:
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0]] * 3)
    cases = cases_of([[3, 4, 3], [3, 6], [3, 4]], [5, 6, 5])
    assert cases.seen().tolist() == [False, True, False]
    assert ranks(Table(scores), cases, filter_seen=True).tolist() == [1.0, torch.inf, 1.0]
    assert ranks(Table(scores), cases).tolist() == [3.0, 4.0, 3.0]
    ids, _ = top_k(Table(scores), cases.history, 3, filter_seen=True)
    assert ids.tolist() == [[5, 6, 0], [4, 5, 0], [5, 6, 0]]


def test_items_without_a_training_event_are_neither_ranked_nor_recommended() -> None:
    scorer = Table(torch.tensor([[4.0, 3.0, 2.0, 1.0]] * 2), [False, True, False, True])
    assert ranks(scorer, cases_of([[3], [3]], [6, 5])).tolist() == [2.0, torch.inf]
    assert top_k(scorer, sessions_of([[3], [4]]), 4)[0].tolist() == [[4, 6, 0, 0]] * 2


def test_tiles_of_nothing_but_such_items_are_not_even_scored() -> None:
    rankable = [False] * 20_000
    rankable[19_000] = rankable[5] = True
    scorer = Table(torch.rand(1, 20_000), rankable)
    assert ranks(scorer, cases_of([[3]], [19_003])).tolist()[0] in (1.0, 2.0)
    assert sorted(top_k(scorer, sessions_of([[3]]), 2)[0].tolist()[0]) == [8, 19_003]
    scorer = Table(torch.rand(1, 4), [False] * 4)
    assert top_k(scorer, sessions_of([[3]]), 2)[0].tolist() == [[0, 0]]


def test_a_target_outside_the_catalogue_is_a_miss() -> None:
    assert ranks(Table(torch.rand(1, 4)), cases_of([[3]], [2])).tolist() == [torch.inf]


@pytest.mark.parametrize("num_items", [4, 30_000])
def test_no_history_gives_no_list_and_no_rank(num_items: int) -> None:
    scorer, cases = Table(torch.rand(1, num_items)), cases_of([[3]], [2])
    none = cases.select(torch.zeros(0, dtype=torch.long))
    ids, best = top_k(scorer, none.history, 10, filter_seen=True)
    assert ids.shape == best.shape == (0, min(10, num_items))
    assert ids.dtype == torch.long
    assert ranks(scorer, none, filter_seen=True).shape == (0,)


def test_nothing_is_scored_where_no_target_can_be_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Table(torch.rand(1, 4), [True, True, True, False])
    monkeypatch.setattr(scorer, "queries", lambda histories: pytest.fail("there is nothing to rank"))
    assert ranks(scorer, cases_of([[3], [4]], [2, 6])).tolist() == [torch.inf, torch.inf]


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FloatingPointError, match="diverged"):
        ranks(Table(torch.tensor([[torch.nan, 1.0]])), cases_of([[3]], [3]))


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


@pytest.mark.parametrize("dim", [4, 64, 256])
@pytest.mark.parametrize("num_items", [50, 6000])
def test_items_with_equal_vectors_tie_though_their_products_are_rounded_apart(num_items: int, dim: int) -> None:
    model = model_of({"name": "sasrec", "dim": dim}, num_items=num_items)
    with torch.no_grad():
        model.inputs.items.table_VE[FIRST_ID:] = model.inputs.items.table_VE[FIRST_ID]
    sessions = random_sessions(70, num_items, 3)
    cases = Cases(sessions.drop_last(1), sessions.item_from_end(0))
    assert (ranks(ModelScorer(model), cases) == (num_items + 1) / 2).all()
    ids, _ = top_k(ModelScorer(model), cases.history, 20)
    assert (ids == torch.arange(FIRST_ID, FIRST_ID + 20)).all()


def test_items_that_share_a_vector_tie_among_others_that_do_not() -> None:
    """Most items have the picture of "no photo yet"; vectors pass through a layer before they are scored."""
    model = model_of({"name": "sasrec", "dim": 64}, num_items=60, heads={"next_item": {"bias": True}})
    with torch.no_grad():
        model.inputs.items.table_VE[FIRST_ID + 20 :] = model.inputs.items.table_VE[FIRST_ID + 20]
        model.next_item.bias_V += 9.0
    sessions = random_sessions(200, 60, 3)
    cases = Cases(sessions.drop_last(1), sessions.item_from_end(0))
    scorer = ModelScorer(model)
    exact = scorer.queries(cases.history).double() @ scorer.items_VE.double().T
    own = exact.gather(1, cases.target[:, None] - FIRST_ID)
    expected = 0.5 + (exact > own + 1e-9).sum(1) + 0.5 * ((exact - own).abs() <= 1e-9).sum(1)
    assert torch.equal(ranks(scorer, cases), expected.double())


def test_a_chunk_of_long_histories_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the layers hold grows with the events read at once, so these are what is bounded."""
    model, sizes = model_of("sasrec", num_items=50), []
    states = model.states

    def counted(histories: Sessions) -> torch.Tensor:
        sizes.append(histories.num_events)
        return states(histories)

    sessions = random_sessions(100, 50, 1)
    whole = ModelScorer(model).queries(sessions)
    monkeypatch.setattr(model, "states", counted)
    monkeypatch.setattr(scoring, "MOST_EVENTS", {"cpu": 40, "cuda": 40})
    parts = ModelScorer(model).queries(sessions)
    assert sum(sizes) == sessions.num_events and max(sizes) <= 60 and len(sizes) > 10
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)
    assert ModelScorer(model).queries(sessions.select(torch.arange(0))).shape == (0, 16)


@examples(20)
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
            scores[row, seen] = -torch.inf
    column = cases.target[:, None] - FIRST_ID
    own, near = scores.gather(1, column), 2 * scorer.rounding(scorer.queries(cases.history), column)
    scores.scatter_(1, column, -torch.inf)
    best, worst = 1 + (scores > own + near).sum(1), 1 + (scores > own - near).sum(1)
    rank_N = ranks(scorer, cases, filter_seen=filter_seen)
    seen = own[:, 0] == -torch.inf
    assert rank_N[seen].isinf().all()
    assert ((best <= rank_N) & (rank_N <= worst))[~seen].all()
    assert float((worst - best)[~seen].float().mean()) < 1, "what ties is little"


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


def test_metrics_by_hand() -> None:
    found = metrics_at(torch.tensor([1.0, 3.0, 11.0, torch.inf]), (5, 10))
    assert found["recall@5"] == found["hitrate@5"] == 0.5
    assert found["precision@5"] == pytest.approx(0.1)
    assert found["mrr@10"] == found["map@10"] == pytest.approx((1 + 1 / 3) / 4)
    assert found["ndcg@10"] == pytest.approx((1 + 0.5) / 4)


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


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 5000, 6 * BLOCK - 1])
def test_a_score_that_is_not_finite_is_found_wherever_it_stands(bad: float, place: int) -> None:
    scores = torch.rand(2, 6 * BLOCK)
    scores[1, place] = bad
    with pytest.raises(FloatingPointError, match="diverged"):
        top_k(Table(scores), sessions_of([[3], [4]]), 4)
    model = model_of("sasrec", num_items=6 * BLOCK)
    with torch.no_grad():
        model.inputs.items.table_VE[FIRST_ID + place] = bad
    for work in (
        lambda: ranks(ModelScorer(model), cases_of([[8]], [9])),
        lambda: top_k(ModelScorer(model), sessions_of([[8]]), 3),
    ):
        with pytest.raises(FloatingPointError, match="diverged"):
            work()


def test_a_query_or_item_of_zeros_ties_with_what_scores_exactly_the_same() -> None:
    model = model_of("sasrec", num_items=50)
    with torch.no_grad():
        model.inputs.items.table_VE[FIRST_ID : FIRST_ID + 10] = 0
    scorer = ModelScorer(model)
    sessions = random_sessions(30, 50, 3)
    cases = Cases(sessions.drop_last(1), torch.full((30,), FIRST_ID + 2))
    better = (scorer.queries(cases.history).double() @ scorer.items_VE.double().T > 0).sum(1)
    assert torch.equal(ranks(scorer, cases), 1 + better + 4.5)
    scorer.queries = lambda histories: torch.zeros(len(histories), 16)  # type: ignore[method-assign]
    assert (ranks(scorer, cases) == 25.5).all()


def test_ranks_in_blocks_are_those_of_comparing_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to count, with hidden items, ties of equal vectors and a last block that is not full."""
    model = model_of("sasrec", num_items=2 * BLOCK + 37)
    with torch.no_grad():
        table, popularity = model.inputs.items.table_VE, model.next_item.popularity_V
        table[FIRST_ID + 100 : FIRST_ID + 1900] = table[FIRST_ID + 50 : FIRST_ID + 110].repeat(30, 1)
        popularity[::7] = 0
        popularity[BLOCK : BLOCK + 300] = 0
    sessions = random_sessions(300, 2 * BLOCK + 37, 3)
    cases = Cases(sessions.drop_last(1), sessions.item_from_end(0))
    scorer = ModelScorer(model)
    for filter_seen in (False, True):
        in_blocks = ranks(scorer, cases, filter_seen=filter_seen)
        with monkeypatch.context() as patched:
            patched.setattr(scorer, "relative", lambda *args: None)
            assert torch.equal(in_blocks, ranks(scorer, cases, filter_seen=filter_seen))
    assert len(set(in_blocks.tolist())) > 20


class Vectors(VectorScorer):
    """Scores of the n-th of `sessions_of` by query n."""

    def __init__(self, queries_NE: torch.Tensor, items_VE: torch.Tensor) -> None:
        super().__init__(items_VE, None, torch.ones(len(items_VE), dtype=torch.bool))
        self.queries_NE = queries_NE

    def queries(self, histories: Sessions) -> torch.Tensor:
        return self.queries_NE[histories.end // 1_000_000]


@pytest.mark.parametrize("width", [1, 2, 3, 8, 64])
def test_equal_items_tie_however_narrow_their_vectors_are(width: int) -> None:
    torch.manual_seed(3)
    item_E = torch.randn(width)
    scorer = Vectors(item_E * torch.rand(200, 1) * 7, item_E.expand(2000, width).clone())
    assert set(ranks(scorer, cases_of([[3]] * 200, [9] * 200)).tolist()) == {1000.5}


@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-24, 1e-19, 1e-10, 1.0])
def test_targets_with_vectors_of_any_length_are_ranked_as_their_scores_say(size: float) -> None:
    torch.manual_seed(4)
    items_VE = torch.randn(1500, 16)
    items_VE[:100] *= size
    scorer = Vectors(torch.randn(50, 16), items_VE)
    target_N = torch.arange(50) + FIRST_ID
    scores_NV = scorer.queries_NE.double() @ items_VE.double().T
    own_N1 = scores_NV.gather(1, target_N.unsqueeze(1) - FIRST_ID)
    better_N, equal_N = (scores_NV > own_N1).sum(1), (scores_NV == own_N1).sum(1)
    expected_N = better_N + (equal_N + 1) / 2
    assert ranks(scorer, cases_of([[3]] * 50, target_N.tolist())).tolist() == expected_N.tolist()


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
