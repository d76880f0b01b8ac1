"""Intervals by resampling users: against scipy, by how often they hold the truth, and in what they must not depend on."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from modeling.evaluation.bootstrap import Bootstrap
from modeling.evaluation.rank_table import RankTable
from modeling.evaluation.slices import intervals, slices


def bounds(value_N: np.ndarray, user_N: np.ndarray | None = None, tail: float = 0.025) -> tuple[float, float]:
    drawn = Bootstrap(np.arange(len(value_N)) if user_N is None else user_N)
    low, high = drawn.intervals(drawn.sums(value_N)[:, None], tail)
    return float(low[0]), float(high[0])


@pytest.mark.parametrize("skewed", [False, True])
def test_intervals_are_those_of_scipy(skewed: bool) -> None:
    rng = np.random.default_rng(3)
    value_N = rng.exponential(size=80) if skewed else rng.normal(size=80)
    found = stats.bootstrap((value_N,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert bounds(value_N) == pytest.approx((found.low, found.high), abs=0.1 * (found.high - found.low))


def test_cases_of_one_user_are_drawn_together() -> None:
    """Ten cases a user that are all alike tell as much as one."""
    value_U = np.random.default_rng(1).normal(size=50)
    once, often = bounds(value_U), bounds(np.repeat(value_U, 10), np.repeat(np.arange(50), 10))
    assert often == pytest.approx(once)
    apart = bounds(np.repeat(value_U, 10))
    assert apart[1] - apart[0] < 0.5 * (once[1] - once[0])


def test_many_users_in_groups_have_the_interval_they_had() -> None:
    value_N = np.random.default_rng(2).exponential(size=6000)
    whole, drawn = bounds(value_N), Bootstrap(np.arange(6000), most_groups=500)
    low, high = (float(bound[0]) for bound in drawn.intervals(drawn.sums(value_N)[:, None], 0.025))
    assert (low, high) == pytest.approx(whole, abs=0.15 * (whole[1] - whole[0]))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(200):
        low, high = bounds((rng.random(300) < 0.2) * rng.random(300), tail=0.05)
        held += low <= 0.1 <= high
    assert 0.84 < held / 200 < 0.96


def test_equal_values_have_no_width_and_the_same_draws_give_the_same_interval() -> None:
    assert bounds(np.full(30, 0.1)) == pytest.approx((0.1, 0.1), abs=1e-12)
    value_N = np.random.default_rng(5).random(40)
    assert bounds(value_N) == bounds(value_N)


def table() -> RankTable:
    """Eight cases of six users; the first two scorers differ in one rank."""
    about = pl.DataFrame({
        "case": range(8),
        "user": ["a", "b", "c", "d", "e", "f", "f", "f"],
        "history_length": [1, 2, 4, 5, 9, 10, 50, 70],
        "target_popularity": [1, 1, 2, 2, 5, 5, 9, 9],
        "target_age_days": [0.0, 0.9, 1.0, 6.9, 7.0, 29.0, 30.0, None],
        "returning": [True, True, False, False, True, True, True, None],
    })  # fmt: skip
    model = np.array([1, 2, 3, 4, 5, 30, np.inf, 1.5])
    return RankTable(about, {"sasrec": model, "markov": np.where(model == 1, 2.0, model)})


def test_every_metric_has_an_interval() -> None:
    found = intervals(table(), (5, 20))
    assert found["users"] == 6 and set(found["metrics"]) == {"sasrec", "markov"}
    of = found["metrics"]["sasrec"]
    names = ("recall", "precision", "hitrate", "map", "mrr", "ndcg")
    assert set(of) == {f"{name}@{k}" for k in (5, 20) for name in names}
    assert of["precision@5"] == [bound / 5 for bound in of["recall@5"]] and of["map@5"] == of["mrr@5"]
    assert of["recall@5"][0] < 6 / 8 <= of["recall@5"][1] and of["mrr@5"][0] < of["mrr@5"][1]


def test_slices_divide_the_cases() -> None:
    rows = slices(table(), 5)
    cases = {(row["slice"], row["part"]): row["cases"] for row in rows}
    assert cases == {
        ("history length", "1"): 1, ("history length", "2 to 4"): 2, ("history length", "5 to 9"): 2,
        ("history length", "10 to 49"): 1, ("history length", "50 and more"): 2,
        ("age of the item", "under a day"): 2, ("age of the item", "1 to 7 days"): 2,
        ("age of the item", "7 to 30 days"): 2, ("age of the item", "30 days and more"): 1,
        ("training events of the item", "0 to 2"): 4, ("training events of the item", "3 to 5"): 2,
        ("training events of the item", "6 and more"): 2, ("user", "new"): 2, ("user", "returning"): 5,
    }  # fmt: skip
    long = next(row for row in rows if row["part"] == "50 and more")
    assert long["users"] == 1 and long["metrics"]["sasrec"]["recall@5"] == 0.5
    young = next(row for row in rows if row["part"] == "under a day")
    assert young["metrics"]["markov"]["recall@5"] == 1 and young["metrics"]["markov"]["ndcg@5"] < 1
    assert young["interval"][0] <= young["metrics"]["sasrec"]["ndcg@5"] <= young["interval"][1]
    assert next(row for row in rows if row["part"] == "1")["interval"] is None, (
        "one case alone says nothing of the rest"
    )


def test_without_cases_there_are_no_slices() -> None:
    empty = RankTable(table().about.clear(), {"sasrec": np.array([])})
    assert slices(empty, 5) == [] and intervals(empty, (5,))["metrics"] == {}
