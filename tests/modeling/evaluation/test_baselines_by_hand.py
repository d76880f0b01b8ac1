"""Baselines against the same formulas in plain loops, and the choice of their settings."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from modeling.evaluation import baselines
from modeling.evaluation.baselines._baseline import Baseline
from modeling.evaluation.baselines.ease import EASE
from modeling.evaluation.baselines.item_knn import ItemKNN
from modeling.evaluation.baselines.recent_popularity import RecentPopularity
from modeling.evaluation.baselines.second_order_markov import SecondOrderMarkov
from modeling.evaluation.baselines.v_sknn import VSKNN
from modeling.evaluation.baselines.vstan import VSTAN
from modeling.evaluation.choosing import fit_best
from modeling.sessions import Sessions
from modeling.splits import Split, hide_last
from schemas import plugins
from schemas.columns import FIRST_ID
from tests.conftest import random_sessions, sessions_of

NUM_ITEMS = 12
HOUR = 3600 * 1_000_000


def some(count: int, seed: int) -> Sessions:
    """Sessions an hour apart, newest last."""
    sessions = random_sessions(count, NUM_ITEMS, seed)
    return replace(sessions, end=torch.arange(count) * HOUR)


TRAIN, HISTORIES = some(80, 1), some(25, 2)
NEWEST = TRAIN.select(torch.arange(60, 80))


def lists(sessions: Sessions) -> list[list[int]]:
    """Columns of the items of each session."""
    return [
        (sessions.items[start : start + length] - FIRST_ID).tolist()
        for start, length in zip(sessions.starts.tolist(), sessions.lengths.tolist(), strict=True)
    ]


def same(scores: Tensor, expected: list[list[float]]) -> None:
    """Equal where anything is scored; where nothing is, below."""
    expected_NV = torch.tensor(expected)
    assert (expected_NV > 0).any()
    torch.testing.assert_close(scores[expected_NV > 0], expected_NV[expected_NV > 0], rtol=1e-5, atol=1e-7)
    assert (scores[expected_NV == 0] <= 0).all()


def test_recent_popularity_halves_by_age() -> None:
    scorer = RecentPopularity(TRAIN, NEWEST, NUM_ITEMS, setting={"half_life": 8.0})
    expected = [0.0] * NUM_ITEMS
    for session, items in enumerate(lists(TRAIN)):
        for item in items:
            expected[item] += 2 ** -((79 - session) / 8)
    same(scorer.queries(HISTORIES), [expected] * 25)
    plain = RecentPopularity(TRAIN, TRAIN, NUM_ITEMS)
    assert torch.equal(plain.queries(HISTORIES)[0], TRAIN.item_counts(NUM_ITEMS).float()), "histories have no age"


def test_second_order_markov_interpolates() -> None:
    scorer = SecondOrderMarkov(TRAIN, NEWEST, NUM_ITEMS)
    one, two, prior = Counter[tuple[int, ...]](), Counter[tuple[int, ...]](), Counter[int]()
    for items in lists(TRAIN):
        prior.update(items)
        one.update(itertools.pairwise(items))
        two.update(zip(items, items[1:], items[2:], strict=False))
    expected = []
    for history in [*lists(HISTORIES), [3]]:
        row = [prior[item] / sum(prior.values()) for item in range(NUM_ITEMS)]
        for counts, context in ((one, history[-1:]), (two, history[-2:])):
            after = {key[-1]: n for key, n in counts.items() if key[:-1] == tuple(context)}
            if after and (len(context) > 1 or counts is one):
                whole = sum(after.values()) + len(after)
                row = [(after.get(item, 0) + len(after) * p) / whole for item, p in enumerate(row)]
        expected.append(row)
    scores = torch.cat([scorer.queries(HISTORIES), scorer.queries(sessions_of([[3 + FIRST_ID]]))])
    same(scores, expected)
    torch.testing.assert_close(scores.sum(1), torch.ones(26))


@pytest.mark.parametrize("setting", [{"shrinkage": 0.0, "decay": 1.0}, {"shrinkage": 10.0, "decay": 0.5}])
def test_item_knn_shrinks_and_decays(setting: dict[str, float]) -> None:
    scorer = ItemKNN(TRAIN, NEWEST, NUM_ITEMS, setting=setting)
    sets = [set(items) for items in lists(TRAIN)]

    def similarity(i: int, j: int) -> float:
        both = sum({i, j} <= items for items in sets)
        sizes = [sum(item in items for items in sets) for item in (i, j)]
        return (
            0.0 if i == j or not both else both / math.sqrt(sizes[0] * sizes[1]) * both / (both + setting["shrinkage"])
        )

    expected = []
    for history in lists(HISTORIES):
        place = {item: len(history) - 1 - place for place, item in enumerate(history)}
        expected.append(
            [sum(setting["decay"] ** q * similarity(i, j) for j, q in place.items()) for i in range(NUM_ITEMS)]
        )
    same(scorer.queries(HISTORIES), expected)


def by_neighbours(setting: dict[str, float], vstan: bool) -> list[list[float]]:
    """V-SkNN and VSTAN as session-rec writes them: a loop over neighbours, one over their items."""
    sessions = lists(TRAIN)
    events = Counter(item for items in sessions for item in items)
    scores = []
    for history in lists(HISTORIES):
        length, row = len(history), [0.0] * NUM_ITEMS
        weight: dict[int, float] = {}
        for p, item in enumerate(history, 1):
            weight[item] = math.exp((p - length) / setting["spw"]) if vstan else p / length
        possible = [s for s, items in enumerate(sessions) if weight.keys() & items][-int(setting["sampled"]) :]
        near = []
        for s in possible:
            similarity = sum(w for item, w in weight.items() if item in sessions[s])
            if vstan:
                similarity /= math.sqrt(sum(w * w for w in weight.values())) * math.sqrt(len(set(sessions[s])))
                similarity *= math.exp(-(79 - s) / 24 / setting["snh"])
            else:
                similarity /= len(weight)
            near.append((round(similarity, 12), s, similarity))
        for _, s, similarity in sorted(near, reverse=True)[: int(setting["neighbours"])]:
            items = sessions[s]
            after = next(q for q, item in enumerate(reversed(history)) if item in items)
            position = math.exp(-after / setting["ipw"]) if vstan else 1 / (after + 1)
            last = {item: d for d, item in enumerate(items)}
            shared = max(d for item, d in last.items() if item in weight)
            for item, d in last.items():
                distance = math.exp(-abs(d - shared) / setting["inh"]) if vstan else 1
                idf = math.log(len(sessions) / events[item])
                row[item] += similarity * position * distance * (1 + setting["idf_weight"] * idf)
        scores.append(row)
    return scores


@pytest.mark.parametrize(("sampled", "neighbours"), [(1000.0, 500.0), (20.0, 100.0), (30.0, 5.0)])
@pytest.mark.parametrize("kind", [VSKNN, VSTAN])
def test_session_neighbours_are_those_of_loops(kind: type[Baseline], sampled: float, neighbours: float) -> None:
    setting = {**kind.grid[0], "sampled": sampled, "neighbours": neighbours, "idf_weight": 1.0, "ipw": 2.0}
    scorer = kind(TRAIN, NEWEST, NUM_ITEMS, setting=setting)
    same(scorer.queries(HISTORIES), by_neighbours(setting, kind is VSTAN))


def test_items_without_a_neighbour_follow_by_popularity_of_the_newest_day() -> None:
    train = sessions_of([[3, 4], [5, 6], [6, 7], [6, 5]])
    for name in ("item_knn", "v_sknn", "vstan"):
        scorer = plugins.find(baselines, name)(train, train.select(torch.tensor([2, 3])), 6)
        score_V = scorer.queries(sessions_of([[3]]))[0]
        assert score_V[1] > 0 > score_V[3] > score_V[2] > score_V[5]


def test_ease_is_the_closed_form() -> None:
    scorer = EASE(TRAIN, NEWEST, NUM_ITEMS, setting={"l2": 5.0})
    seen = np.zeros((80, NUM_ITEMS))
    asked = np.zeros((25, NUM_ITEMS))
    for matrix, sessions in ((seen, TRAIN), (asked, HISTORIES)):
        for row, items in enumerate(lists(sessions)):
            matrix[row, items] = 1
    inverse = np.linalg.inv(seen.T @ seen + 5 * np.eye(NUM_ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    np.testing.assert_allclose(scorer.queries(HISTORIES).numpy(), asked @ weights, atol=1e-5)


def test_ease_ranks_items_outside_its_catalogue_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeling.evaluation.baselines.ease.MOST_ITEMS", 5)
    scorer = EASE(TRAIN, NEWEST, NUM_ITEMS)
    scores = scorer.queries(HISTORIES)
    left_out = np.setdiff1d(np.arange(NUM_ITEMS), scorer.columns)
    assert (scores[:, left_out] == scores.amin(1, keepdim=True)).all() and len(left_out) == 7


class Tried(Baseline):
    """Scores one item by its setting, and notes which sessions it was fit on."""

    grid = ({"item": 0.0}, {"item": 1.0}, {"item": 2.0})
    fits: ClassVar[list[tuple[int, bool]]] = []

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        self.fits.append((len(train), self.trial))

    def queries(self, histories: Sessions) -> Tensor:
        scores = torch.zeros(len(histories), self.num_items)
        scores[:, int(self.setting["item"])] = 1
        return scores


def split_of(train: list[list[int]], validation: list[list[int]], after: int) -> Split:
    """A split by days; the validation cases come after so many training sessions, ten hours apart."""
    sessions, cases = sessions_of(train), sessions_of(validation)
    sessions = replace(sessions, end=torch.arange(len(train)) * 10 * HOUR)
    cases = replace(cases, end=torch.full((len(validation),), (after - 1) * 10 * HOUR + 1))
    return Split(sessions, hide_last(cases), hide_last(cases), sessions.select(torch.arange(len(train))[-2:]))


def test_settings_are_chosen_on_what_comes_after() -> None:
    Tried.fits = []
    split = split_of([[3, 4, 5]] * 6, [[4, 5], [3, 5], [3, 4]], after=4)
    scorer = fit_best(Tried, split, 3, cutoff=1, filter_seen=False)
    assert scorer.setting == {"item": 2.0}  # type: ignore[attr-defined]
    assert Tried.fits == [(4, True), (6, False)], "tried on the sessions before the cases, then fit on all"


def test_with_nothing_to_choose_by_the_default_is_taken() -> None:
    for split in (split_of([[3, 4, 5]] * 6, [[4, 5]], after=0), split_of([[3, 4]] * 3, [[3, 2]], after=3)):
        assert fit_best(Tried, split, 3, cutoff=1, filter_seen=False).setting == {"item": 0.0}  # type: ignore[attr-defined]
