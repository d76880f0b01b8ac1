"""Ranks and lists as a GPU makes them, on a CPU: by kernels of Triton where it is installed, or torch in their place."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.evaluation import fused, lists
from modeling.evaluation.ranking import ranks, top_k
from modeling.scoring import VectorScorer
from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID
from schemas.errors import DivergedError
from tests.conftest import sessions_of
from tests.modeling.evaluation import plain_kernels
from tests.modeling.evaluation.scorers import Table


@pytest.fixture(scope="module", autouse=True)
def kernels() -> Iterator[None]:
    """Small tiles, of which there are several, and torch in the place of Triton."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "modeling.evaluation.kernels", plain_kernels)
        patched.setattr("modeling.evaluation.kernels", plain_kernels, raising=False)
        patched.setattr(fused, "takes", lambda device: True)
        patched.setattr(fused, "ROWS", 2)
        patched.setattr(fused, "TILE", 64)
        patched.setattr(fused, "tile_of", lambda rows: 96)
        patched.setattr(fused, "HELD", 3 * 300)
        patched.setattr(lists, "LONGEST", 0)  # no groups of a CPU
        patched.setattr(VectorScorer, "relative", lambda *given: None)
        yield


def plain_list(scores: list[float], hidden: set[int], k: int) -> list[int]:
    """A stable sort of what is left."""
    left = [column for column in range(len(scores)) if column not in hidden]
    best = sorted(left, key=lambda column: (-scores[column], column))[:k]
    return [column + FIRST_ID for column in best] + [0] * (min(k, len(scores)) - len(best))


@given(
    num_items=st.sampled_from([1, 31, 32, 33, 150, 300]),
    values=st.sampled_from([2, 50, 10_000]),
    k=st.sampled_from([1, 5, 40, 400]),
    filter_seen=st.booleans(),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=60, deadline=None)
def test_ranks_and_lists_are_those_of_a_stable_sort(
    num_items: int, values: int, k: int, filter_seen: bool, seed: int
) -> None:
    """With ties, few or many, seen items, items never to rank and lists longer than the catalogue."""
    generator = torch.Generator().manual_seed(seed)
    scores_NV = torch.randint(-values, values, (5, num_items), generator=generator).float()
    rankable = (torch.rand(num_items, generator=generator) > 0.2).tolist()
    items = torch.randint(FIRST_ID, FIRST_ID + num_items, (5, 4), generator=generator).tolist()
    sessions = sessions_of([row[:3] for row in items])
    cases = Cases(sessions, torch.tensor([row[3] for row in items]))
    table = Table(scores_NV, rankable)
    rank_N, (ids_NK, _) = (
        ranks(table, cases, filter_seen=filter_seen),
        top_k(table, sessions, k, filter_seen=filter_seen),
    )
    never = {column for column, may in enumerate(rankable) if not may}
    for row, scores in enumerate(scores_NV.tolist()):
        hidden = never | ({item - FIRST_ID for item in items[row][:3]} if filter_seen else set())
        assert ids_NK[row].tolist() == plain_list(scores, hidden, k)
        target = items[row][3] - FIRST_ID
        left = [scores[column] for column in range(num_items) if column not in hidden and column != target]
        above, ties = (sum(map(test, left)) for test in (scores[target].__lt__, scores[target].__eq__))
        assert rank_N[row] == (torch.inf if target in hidden else 1 + above + ties / 2)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 31, 150, 299])
def test_a_score_that_is_not_finite_is_found_wherever_it_stands(bad: float, place: int) -> None:
    scores_NV = torch.rand(2, 300)
    scores_NV[1, place] = bad
    with pytest.raises(DivergedError):
        top_k(Table(scores_NV), sessions_of([[3], [4]]), 5)


def test_products_of_vectors_give_the_lists_of_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    queries_NE, items_VE = torch.randn(7, 8, generator=generator), torch.randn(290, 8, generator=generator)
    items_VE[10:40] = items_VE[3]

    class Given(VectorScorer):
        def queries(self, histories: Sessions) -> torch.Tensor:
            return queries_NE[histories.end // 1_000_000]

    histories = sessions_of([[3 + number, 50 + number] for number in range(7)])
    cases = Cases(histories, torch.arange(20, 27))
    answers = []
    for takes in (True, False):
        monkeypatch.setattr(fused, "takes", lambda device, takes=takes: takes)
        scorer = Given(items_VE, None, torch.ones(290, dtype=torch.bool))
        answers.append((ranks(scorer, cases, filter_seen=True), top_k(scorer, histories, 20, filter_seen=True)[0]))
    assert all(torch.equal(one, two) for one, two in zip(*answers, strict=True))


@pytest.mark.skipif(find_spec("triton") is None or torch.cuda.is_available(), reason="for Triton's interpreter")
def test_kernels_do_what_torch_does_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    monkeypatch.delitem(sys.modules, "modeling.evaluation.kernels")
    import importlib

    made = importlib.import_module("modeling.evaluation.kernels")
    generator = torch.Generator().manual_seed(0)
    scores_RV = torch.randint(-40, 40, (3, 1_100), generator=generator).float()
    pair_P2 = torch.stack([torch.randint(0, 3, (90,), generator=generator), torch.randint(-3, 1_110, (90,))], 1)
    never_V = torch.rand(1_100, generator=generator) < 0.1
    limit_R = torch.tensor([0.0, 20.0, -50.0])
    results = []
    for module in (made, plain_kernels):
        words_RG = module.hidden_bits(pair_P2, never_V, 3)
        twice_R, most_RG = torch.zeros(3, dtype=torch.int32), torch.zeros(3, words_RG.shape[1])
        for first in (0, 544):
            part_RT = scores_RV[:, first : first + 544] if not first else scores_RV[:, first:]
            module.count_better(part_RT, words_RG, first, limit_R, limit_R + 1, twice_R)
            module.group_maxima(part_RT, words_RG, first, most_RG)
        best_RK, place_RK = module.best_of_row(most_RG, 9)
        opened_RX = module.open_groups(scores_RV, words_RG, place_RK.sort(1).values, 1_100)
        results.append([words_RG, twice_R, most_RG, best_RK.sort(1).values, place_RK.sort(1).values, opened_RX])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
