"""What training is judged by while it runs: the cases held out of the newest sessions, by the code that recommends."""

from __future__ import annotations

import math

import torch

from modeling.config import LOWER_IS_BETTER, NEXT_ITEM
from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import ranks
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer, predict
from modeling.splits import Cases, label_cases

RANKED = ("ndcg@20", "recall@20")


def goal_of(model: SequenceModel) -> str:
    """The metric by which the best weights are chosen and training stops: NDCG@20; without a head for items the AUC of the
    first binary one, or else the RMSE of the first.
    """
    if NEXT_ITEM in model.heads:
        return RANKED[0]
    goals = [(next(iter(head.metrics)), label) for label, head in model.label_heads.items()]
    metric, label = min(goals, key=lambda goal: goal[0] in LOWER_IS_BETTER)  # AUC before RMSE
    return f"{label}/{metric}"


def validate(model: SequenceModel, cases: Cases) -> dict[str, float]:
    """NDCG and recall at 20, and the metrics of labels, on validation cases, by the code that evaluates and recommends.

    What is undefined on these cases is left out, but for the goal, which then always is the same: an AUC of .5, an error of 0.
    """
    found: dict[str, float] = {}
    if NEXT_ITEM in model.heads:
        known = cases.known()
        rank_N = ranks(ModelScorer(model), known) if len(known.target) else torch.tensor([torch.inf])
        metrics = metrics_at(rank_N, (20,))
        found = {name: metrics[name] for name in RANKED}
    for label, head in model.label_heads.items():
        histories, value_N = label_cases(cases, head.column, back=model.schema.split == "day")
        measured = head.measure(predict(model, histories)[label], value_N.cpu())
        found |= {f"{label}/{name}": value for name, value in measured.items() if not math.isnan(value)}
    goal = goal_of(model)
    return {goal: 0.5 if goal.endswith("/auc") else 0.0} | found
