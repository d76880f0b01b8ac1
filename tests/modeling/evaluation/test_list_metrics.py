"""Metrics of ranks and of lists: the values that RecTools gives for stored cases, and the definitions written out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.evaluation.baselines._baseline import Baseline
from modeling.evaluation.list_metrics import Alike, Catalogue, gini_index, list_metrics, serendipity
from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import ranks, top_k
from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID

GOLDEN = Path(__file__).parent / "rectools.json"


class Given(Baseline):
    """Scores that are given, in the order of the histories."""

    scores_NV: torch.Tensor

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        pass

    def queries(self, histories: Sessions) -> torch.Tensor:
        return self.scores_NV[histories.end]


def sessions(lists: list[list[int]]) -> Sessions:
    lengths = torch.tensor([len(items) for items in lists])
    items = torch.tensor([item + FIRST_ID for items in lists for item in items], dtype=torch.int32)
    return Sessions({"item_id": items}, lengths.cumsum(0) - lengths, lengths, torch.arange(len(lists)))


@pytest.fixture
def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDEN.read_text())
    return found


def scorer_of(golden: dict[str, Any]) -> Given:
    train = sessions(golden["train"])
    scorer = Given(train, train, golden["num_items"])
    scorer.scores_NV = torch.tensor(golden["scores"])
    return scorer


def lists_of(scorer: Given, filter_seen: bool = False) -> Callable[[Sessions, int], torch.Tensor]:
    return lambda histories, k: top_k(scorer, histories, k, filter_seen=filter_seen)[0]


def test_metrics_are_those_of_rectools(golden: dict[str, Any]) -> None:
    """Values computed once by RecTools 0.19: NDCG with divide_by_achievable, coverage normalised, Hamming distance."""
    scorer, histories = scorer_of(golden), sessions(golden["histories"])
    target_N = torch.tensor(golden["targets"]) + FIRST_ID
    catalogue = Catalogue.of(sessions(golden["train"]), scorer.rankable_V)
    rank_N = ranks(scorer, Cases(histories, target_N))
    popular_N = catalogue.popularity_rank()[target_N - FIRST_ID]
    found = metrics_at(rank_N, (3, 5)) | serendipity(rank_N, popular_N, catalogue.size, (3, 5))
    alike = Alike(codes_V=torch.tensor(golden["categories"]))
    found |= list_metrics(lists_of(scorer), histories, (3, 5), catalogue, alike)
    values = golden["values"]
    assert {name: found[name] for name in values} == pytest.approx(values, abs=1e-6)
    assert len({round(value, 6) for value in values.values()}) > 12, "they tell something"


def test_diversity_by_vectors_is_the_mean_distance_of_pairs(golden: dict[str, Any]) -> None:
    scorer, histories = scorer_of(golden), sessions(golden["histories"])
    vectors_VE = torch.randn(golden["num_items"], 4, generator=torch.Generator().manual_seed(1))
    catalogue = Catalogue.of(sessions(golden["train"]), scorer.rankable_V)
    found = list_metrics(lists_of(scorer), histories, (3,), catalogue, Alike.by_vectors(vectors_VE))
    expected = []
    for scores in golden["scores"]:
        order = sorted((v for v in range(len(scores)) if scorer.rankable_V[v]), key=lambda v: -scores[v])
        cosines = [
            float(torch.cosine_similarity(vectors_VE[a], vectors_VE[b], 0)) for a, b in combinations(order[:3], 2)
        ]
        expected.append(1 - sum(cosines) / 3)
    assert found["intra_list_diversity@3"] == pytest.approx(sum(expected) / len(expected), abs=1e-6)


@pytest.mark.parametrize("filter_seen", [False, True])
def test_repeats_are_items_that_the_history_holds(golden: dict[str, Any], filter_seen: bool) -> None:
    scorer, histories = scorer_of(golden), sessions(golden["histories"])
    catalogue = Catalogue.of(sessions(golden["train"]), scorer.rankable_V)
    alike = Alike(codes_V=torch.zeros(golden["num_items"]))
    found = list_metrics(lists_of(scorer, filter_seen), histories, (4, 50), catalogue, alike)
    shares = []
    for scores, history in zip(golden["scores"], golden["histories"], strict=True):
        order = sorted((v for v in range(len(scores)) if scorer.rankable_V[v]), key=lambda v: -scores[v])
        shares.append(sum(item in history for item in order[:4]) / 4)
    assert found["repeats@4"] == (0 if filter_seen else pytest.approx(sum(shares) / len(shares)))
    assert found["intra_list_diversity@50"] == 0 and found["catalog_coverage@50"] == 1


def test_lists_do_not_depend_on_how_many_are_looked_at_together(
    golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from modeling.evaluation import list_metrics as module

    scorer, histories = scorer_of(golden), sessions(golden["histories"])
    alike = Alike(codes_V=torch.tensor(golden["categories"]))
    found = []
    for rows in (1, 3, 1000):
        monkeypatch.setattr(module, "MOST_LISTS", rows)
        monkeypatch.setattr(module, "MOST_SESSIONS", rows)
        catalogue = Catalogue.of(sessions(golden["train"]), scorer.rankable_V)
        found.append(list_metrics(lists_of(scorer), histories, (3, 5), catalogue, alike))
    assert found[0] == pytest.approx(found[1]) and found[1] == pytest.approx(found[2])


def test_of_no_lists_nothing_is_defined(golden: dict[str, Any]) -> None:
    scorer = scorer_of(golden)
    catalogue = Catalogue.of(sessions(golden["train"]), scorer.rankable_V)
    found = list_metrics(
        lists_of(scorer), sessions([]), (3,), catalogue, Alike(codes_V=torch.tensor(golden["categories"]))
    )
    assert len(found) == 6 and all(math.isnan(value) for value in found.values())


def test_the_gini_index_is_0_of_equal_counts_and_near_1_of_one_item() -> None:
    assert gini_index(torch.tensor([3, 3, 3, 3])) == pytest.approx(0)
    assert gini_index(torch.tensor([0, 0, 0, 8])) == pytest.approx(0.75)
    assert math.isnan(gini_index(torch.tensor([0, 0])))
