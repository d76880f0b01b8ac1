"""Which of two models is better.

The rule. Against a model in service, a metric of ranks is judged by what each test case says, see `evidence`. A metric of
labels, which are predicted and not ranked, is compared as it is: it must be better, by `promotion.min_gain` at least. Where
nothing is in service, or what is there cannot be compared or does not predict the metric, the new model must beat the best of
all baselines that were measured instead (of a label, `mean`), in the same way. A model that was taken out of service by hand
comes back by hand only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modeling.config import LOWER_IS_BETTER, PromotionConfig
from modeling.evaluation.pointer import Champion as Champion
from modeling.evaluation.pointer import champion_of as champion_of

KEEP, KEEP_NOTHING = "keep what is in service", "not promoted, nothing is in service"
Metrics = Mapping[str, float | None]  # by name; None where undefined


@dataclass(frozen=True)
class Rival:
    """What a new model must beat: its score, and who that is in words."""

    score: float
    name: str
    note: str = ""
    """What else to know, such as the best baseline where the model in service is the rival."""
    in_service: bool = True
    """Whether anything is in service that can be kept."""


def best_baseline(metrics: Mapping[str, Metrics], model: str, metric: str) -> tuple[str, float] | None:
    """The best baseline of an evaluation, and its score; None where none was measured.

    {"sasrec": {"ndcg@20": 0.1}, "popularity": {"ndcg@20": 0.09}, "markov": {"ndcg@20": 0.17}} -> ("markov", 0.17)
    """
    scores = {name: values.get(metric) for name, values in metrics.items() if name != model}
    defined = [(name, score) for name, score in scores.items() if score is not None]
    if not defined:
        return None
    best = min if lower_is_better(metric) else max
    return best(defined, key=lambda pair: pair[1])


def instead(baseline: tuple[str, float] | None, why: str, *, in_service: bool = True) -> Rival:
    """The rival where there is no model to compare with: the best baseline, or a score of nothing."""
    if baseline is None:
        return Rival(0.0, f"nothing ({why}, no baseline was measured)", in_service=in_service)
    name, score = baseline
    return Rival(score, f"{name}{'' if name == 'mean' else ', the best baseline'} ({why})", in_service=in_service)


def judge(promotion: PromotionConfig, new: float, rival: Rival) -> dict[str, Any]:
    """Whether the gain is the one asked for: `promote`, `old` and `reason`, a sentence."""
    old, lower, least = rival.score, lower_is_better(promotion.metric), promotion.min_gain or 0.0
    better = new < old * (1 - least) if lower else new > max(old * (1 + least), 0)
    gain = f"{new / old - 1:+.1%}" if old else "from nothing"
    notes = [gain, *(["lower is better"] if lower else [])]
    notes += [f"{least:.1%} asked for"] if least else []
    notes += [rival.note] if rival.note else []
    verdict = "promote" if better else KEEP if rival.in_service else KEEP_NOTHING
    reason = f"{promotion.metric} {new:.4f} against {old:.4f} of {rival.name} ({', '.join(notes)}): {verdict}."
    return {"promote": better, "verdict": "promote" if better else "keep", "old": old, "reason": reason}


def lower_is_better(metric: str) -> bool:
    """Whether a metric is an error: LABEL/rmse and its like."""
    return metric.rpartition("/")[2] in LOWER_IS_BETTER
