"""Metrics against the definitions they are named after, written out, and against scipy."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from modeling.config import LABEL_METRICS, LOWER_IS_BETTER
from modeling.evaluation import metrics
from modeling.evaluation.metrics import auc, calibration_error, log_loss, mae, metrics_at, rmse
from modeling.heads.binary import Binary
from modeling.heads.regression import Regression
from tests.slow import slow

CASES = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=1, max_size=40)


def tensors(cases: list[tuple[float, bool]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([score for score, _ in cases]), torch.tensor([float(label) for _, label in cases])


@settings(deadline=None)
@given(CASES)
def test_auc_is_the_share_of_pairs_in_the_right_order(cases: list[tuple[float, bool]]) -> None:
    score_N, label_N = tensors(cases)
    ones, zeros = (score_N[label_N == value].tolist() for value in (1, 0))
    found = auc(score_N, label_N)
    if not ones or not zeros:
        assert math.isnan(found)
        return
    wins = sum((one > zero) + 0.5 * (one == zero) for one, zero in product(ones, zeros))
    assert found == pytest.approx(wins / (len(ones) * len(zeros)), abs=1e-12)
    assert found == pytest.approx(mannwhitneyu(ones, zeros).statistic / (len(ones) * len(zeros)), abs=1e-12)


def test_auc_of_many_cases_is_exact() -> None:
    """Sums of ranks beyond what float32 holds."""
    score_N = torch.arange(200_001)
    label_N = (score_N % 2 == 0).float()
    assert auc(score_N, label_N) == 0.5
    assert auc(score_N, (score_N >= 100_000).float()) == 1
    assert auc(-score_N, (score_N >= 100_000).float()) == 0


def test_auc_takes_the_frequent_label_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    score_N, label_N = torch.randint(50, (1000,), generator=generator), torch.rand(1000, generator=generator)
    for share in (0.1, 0.9):
        monkeypatch.setattr(metrics, "MOST_CASES", 2**20)
        whole = auc(score_N, (label_N < share).float())
        monkeypatch.setattr(metrics, "MOST_CASES", 7)
        assert auc(score_N, (label_N < share).float()) == whole
        ones, zeros = score_N[label_N < share], score_N[label_N >= share]
        assert whole == pytest.approx(mannwhitneyu(ones, zeros).statistic / (len(ones) * len(zeros)), abs=1e-12)


@settings(deadline=None)
@given(CASES)
def test_log_loss_is_the_mean_surprise(cases: list[tuple[float, bool]]) -> None:
    probability_N, label_N = tensors(cases)
    kept = [min(max(score, 1e-15), 1 - 1e-15) for score, _ in cases]
    surprise = [-math.log(p if label else 1 - p) for p, (_, label) in zip(kept, cases, strict=True)]
    assert log_loss(probability_N, label_N) == pytest.approx(sum(surprise) / len(surprise), rel=1e-6)


def test_calibration_error_by_hand() -> None:
    """Twenty probabilities make bins of two; in each the labels' mean is half off or right."""
    probability_N = torch.arange(20) / 20
    assert calibration_error(probability_N, probability_N) == pytest.approx(0, abs=1e-7)
    label_N = torch.tensor([0.0, 1.0] * 10)
    gaps = [abs(0.5 - (probability_N[place] + probability_N[place + 1]).item() / 2) for place in range(0, 20, 2)]
    assert calibration_error(probability_N, label_N) == pytest.approx(sum(gaps) / 10, abs=1e-6)


@settings(deadline=None)
@given(CASES)
def test_bins_are_cut_where_quantiles_are(cases: list[tuple[float, bool]]) -> None:
    probability_N, label_N = tensors(cases)
    edges = probability_N.double().quantile(torch.arange(1, 10, dtype=torch.double) / 10)
    bins = torch.bucketize(probability_N.double(), edges)
    gaps = [float((label_N - probability_N.double())[bins == place].sum()) for place in range(10)]
    assert calibration_error(probability_N, label_N) == pytest.approx(sum(map(abs, gaps)) / len(cases), abs=1e-12)


@slow  # 17 million cases
def test_more_cases_than_quantiles_are_made_of() -> None:
    """torch.quantile takes 2^24 of them."""
    num_cases = 2**24 + 3
    probability_N = torch.full((num_cases,), 0.25)
    label_N = torch.zeros(num_cases)
    label_N[: num_cases // 2] = 1.0
    assert calibration_error(probability_N, label_N) == pytest.approx(0.25, abs=1e-6)


def test_equal_probabilities_share_a_bin() -> None:
    """A constant is off by the distance of means, in whatever order its cases come."""
    label_N = torch.tensor([1.0] * 3 + [0.0] * 17)
    assert calibration_error(torch.full((20,), 0.15), label_N) == pytest.approx(0, abs=1e-7)
    assert calibration_error(torch.full((20,), 0.40), label_N) == pytest.approx(0.25, abs=1e-6)


def test_rare_labels_are_told_apart_by_the_bins() -> None:
    """Probabilities far below a tenth that are wrong in opposite ways do not cancel out."""
    probability_N = torch.tensor([0.01] * 500 + [0.03] * 500)
    label_N = torch.zeros(1000)
    label_N[:15] = 1
    label_N[500:505] = 1
    assert float(label_N.mean() - probability_N.mean()) == pytest.approx(0, abs=1e-7)
    assert calibration_error(probability_N, label_N) == pytest.approx(0.02, abs=1e-6)


def test_errors_of_numbers_by_hand() -> None:
    predicted_N, value_N = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 7.0])
    assert rmse(predicted_N, value_N) == pytest.approx(math.sqrt((0 + 4 + 16) / 3))
    assert mae(predicted_N, value_N) == pytest.approx((0 + 2 + 4) / 3)


@pytest.mark.parametrize("metric", [auc, log_loss, calibration_error, rmse, mae])
def test_no_cases_are_undefined(metric: object) -> None:
    assert math.isnan(metric(torch.empty(0), torch.empty(0)))  # type: ignore[operator]


def test_the_names_in_the_settings_are_those_of_the_heads() -> None:
    assert {"binary": tuple(Binary.metrics), "regression": tuple(Regression.metrics)} == LABEL_METRICS
    assert set(LOWER_IS_BETTER) == {name for names in LABEL_METRICS.values() for name in names} - {"auc"}


def test_metrics_by_hand() -> None:
    measured = metrics_at(torch.tensor([1.0, 3.0, 11.0, torch.inf]), (5, 10))
    assert measured["recall@5"] == measured["hitrate@5"] == 0.5
    assert measured["precision@5"] == pytest.approx(0.1)
    assert measured["mrr@10"] == measured["map@10"] == pytest.approx((1 + 1 / 3) / 4)
    assert measured["ndcg@10"] == pytest.approx((1 + 0.5) / 4)
