"""What a first model must beat, and how a verdict names it."""

from __future__ import annotations

import pytest

from modeling.config import EvaluationConfig, PromotionConfig
from modeling.evaluation.compare import Rival, best_baseline, instead, judge

METRICS = {"sasrec": {"ndcg@20": 0.0955, "a/rmse": 3.0}, "popularity": {"ndcg@20": 0.0923}}
METRICS |= {"markov": {"ndcg@20": 0.1721}, "silent": {"ndcg@20": None}, "mean": {"a/rmse": 2.0}}  # type: ignore[dict-item]


def test_a_first_model_must_beat_the_best_of_all_baselines() -> None:
    rival = instead(best_baseline(METRICS, "sasrec", "ndcg@20"), "nothing is in service")
    verdict = judge(PromotionConfig(), 0.0955, rival)
    assert verdict["promote"] is False and verdict["old"] == 0.1721
    assert verdict["reason"].endswith("keep what is in service.")
    first = instead(best_baseline(METRICS, "sasrec", "ndcg@20"), "nothing is in service", in_service=False)
    assert judge(PromotionConfig(), 0.0955, first)["reason"].endswith(": not promoted, nothing is in service.")
    assert judge(PromotionConfig(), 0.18, first)["reason"].endswith(": promote.")
    assert "against 0.1721 of markov, the best baseline (nothing is in service)" in verdict["reason"]
    assert judge(PromotionConfig(), 0.18, rival)["promote"]
    assert best_baseline(METRICS, "sasrec", "a/rmse") == ("mean", 2.0)
    two = {"sasrec": {"a/rmse": 3.0}, "mean": {"a/rmse": 2.0}, "other": {"a/rmse": 1.0}}
    assert best_baseline(two, "sasrec", "a/rmse") == ("other", 1.0), "of an error the smallest is the best"
    assert best_baseline({"sasrec": {"ndcg@20": 0.1}}, "sasrec", "ndcg@20") is None


def test_later_nights_name_the_best_baseline_beside_the_model_in_service() -> None:
    verdict = judge(PromotionConfig(), 0.3, Rival(0.2, "the model in service", "best baseline: markov 0.1721"))
    assert verdict["promote"] and "(+50.0%, best baseline: markov 0.1721): promote." in verdict["reason"]


def test_cutoffs_and_baselines_are_not_named_twice() -> None:
    for given in ({"cutoffs": [5, 5]}, {"cutoffs": [0]}, {"baselines": ["markov", "markov"]}):
        with pytest.raises(ValueError):
            EvaluationConfig.model_validate(given)
