"""Ranks against a slow, plain computation, and what is neither ranked nor listed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling import scoring
from modeling.evaluation.ranking import ranks, top_k
from modeling.evaluation.scorer import BLOCK
from modeling.scoring import ModelScorer
from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID
from tests.conftest import model_of, random_sessions, sessions_of
from tests.modeling.evaluation.scorers import Table, Vectors, cases_of
from tests.slow import examples


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
