"""What training is judged by while it runs: the cases held out of the newest sessions, by the code that recommends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from modeling.config import LOWER_IS_BETTER, NEXT_ITEM, Goal
from modeling.evaluation.metrics import gains_of, metrics_at
from modeling.evaluation.ranking import ranks
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer, predict
from modeling.sessions import Sessions
from modeling.splits import Cases, label_cases
from modeling.training.checkpoints import State
from modeling.training.distributed import divided
from modeling.training.sharding import whole

RANKED = ("ndcg@20", "recall@20")
FEW = 100  # cases; with fewer, the standard error of an NDCG of .2 is above .03


@dataclass
class Judge:
    """Validation cases, on the model's device; `goal` is the metric by which they judge, defined on `count` of them.
    Items are ranked with or without seen ones (`filter_seen`).

    With `chooses` the best validated weights are kept and the patience stops a run; else validations are there to be watched.
    `gains` are what each case added to the goal in the newest validation; none where it is no mean over cases.
    """

    cases: Cases
    goal: str
    count: int
    chooses: bool
    filter_seen: bool = False
    gains: tuple[float, ...] = ()

    def validate(self, model: SequenceModel) -> dict[str, float]:
        """See `validate`."""
        metrics, self.gains = _validate(model, self.cases, Goal(metric=self.goal, filter_seen=self.filter_seen))
        return metrics

    @property
    def lower_is_better(self) -> bool:
        """Whether the goal is an error."""
        return self.goal.rpartition("/")[2] in LOWER_IS_BETTER

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value of the goal beats the best so far."""
        return best is None or (value < best if self.lower_is_better else value > best)

    def has_collapsed(self, value: float, best: float) -> bool:
        """Whether less than half of what the best was worth is left; an AUC is worth what it has above .5."""
        if self.lower_is_better:
            return value > 2 * best
        worthless = 0.5 if self.goal.endswith("/auc") else 0.0
        return value - worthless < (best - worthless) / 2

    def consider(self, state: State, value: float, patience: int) -> bool:
        """Note what a validation after `state.step` found in `state`; whether it collapsed, for the first time in the run."""
        better = self.is_better(value, state.best)
        if better or value == state.best:  # as good, and has read more
            state.best, state.best_step = value, state.step
            state.chosen_step = state.step if self.chooses else None
        state.waited = 0 if better else state.waited + 1
        state.stopped = self.chooses and state.waited >= patience
        assert state.best is not None
        if state.collapsed_step is None and self.has_collapsed(value, state.best):
            state.collapsed_step = state.step
            return True
        return False


def judge_of(model: SequenceModel, cases: Cases, order: str, wanted: Goal = Goal()) -> Judge:  # noqa: B008  (frozen)
    """The judge of a run: by the metric wanted, where the model has a head for it and the cases define it.

    Else by NDCG@20; without a head for items by the AUC of the first binary one, or else the RMSE of the first, of those
    defined on the cases.

    In order of time it chooses nothing: a run ends with its newest sessions, and is worth most at that end alone. There the
    number of epochs is chosen by a run in random order (`training.held_out`).
    """
    counts = {label: _count_labels(model, cases, label) for label in model.label_heads}
    goal = goal_of(model, [label for label, count in counts.items() if count], wanted)
    label = goal.rpartition("/")[0]
    count = counts[label] if label else len(cases.known().target)
    return Judge(cases, goal, count, chooses=count > 0 and order == "random", filter_seen=wanted.filter_seen)


def goal_of(
    model: SequenceModel,
    labels: list[str] | None = None,
    wanted: Goal = Goal(),  # noqa: B008  (frozen)
) -> str:
    """The metric by which the best weights are chosen and training stops. Of `labels` where any is given, else of all."""
    heads = model.label_heads
    label, _, metric = wanted.metric.rpartition("/")
    if label in heads and label in (labels or heads) and metric in heads[label].metrics:
        return wanted.metric
    if NEXT_ITEM in model.heads:
        return wanted.metric if wanted.cutoff else RANKED[0]
    goals = [(next(iter(heads[label].metrics)), label) for label in labels or heads]
    metric, label = min(goals, key=lambda goal: goal[0] in LOWER_IS_BETTER)  # AUC before RMSE
    return f"{label}/{metric}"


def validate(
    model: SequenceModel,
    cases: Cases,
    goal: Goal = Goal(),  # noqa: B008  (frozen)
) -> dict[str, float]:
    """NDCG and recall at 20, the goal, and metrics of labels, on validation cases, by the code that evaluates and recommends.

    What is undefined on these cases is left out. Several processes share the cases.
    """
    return _validate(model, cases, goal)[0]


def _validate(model: SequenceModel, cases: Cases, goal: Goal) -> tuple[dict[str, float], tuple[float, ...]]:
    """What `validate` returns, and what each case adds to the goal, where that is a metric of ranks."""
    with whole(model):
        metrics, gains = _validate_items(model, cases, goal)
        return metrics | _validate_labels(model, cases), gains


def _validate_items(model: SequenceModel, cases: Cases, goal: Goal) -> tuple[dict[str, float], tuple[float, ...]]:
    if NEXT_ITEM not in model.heads or not len((known := cases.known()).target):
        return {}, ()
    rank_N = divided(
        len(known.target),
        known.target.device,
        partial(_ranks, ModelScorer(model), known, filter_seen=goal.filter_seen),
    )
    metrics = metrics_at(rank_N, tuple(sorted({20, goal.cutoff or 20})))
    measured = {name: metrics[name] for name in dict.fromkeys([*RANKED, *([goal.metric] if goal.cutoff else [])])}
    return measured, tuple(gains_of(goal.metric, rank_N).tolist()) if goal.cutoff else ()


def _validate_labels(model: SequenceModel, cases: Cases) -> dict[str, float]:
    measured: dict[str, float] = {}
    for label, head in model.label_heads.items():
        histories, value_N = label_cases(cases, head.column, back=model.schema.split == "day")
        predict_label = partial(_predict, model, label, histories)
        of_label = head.measure(divided(len(value_N), value_N.device, predict_label), value_N.cpu())
        measured |= {f"{label}/{name}": value for name, value in of_label.items() if not math.isnan(value)}
    return measured


def _ranks(scorer: ModelScorer, cases: Cases, part: Tensor, *, filter_seen: bool) -> Tensor:
    return ranks(scorer, cases.select(part), filter_seen=filter_seen)


def _predict(model: SequenceModel, label: str, histories: Sessions, part: Tensor) -> Tensor:
    return predict(model, histories.select(part))[label]


def _count_labels(model: SequenceModel, cases: Cases, label: str) -> int:
    """How many cases have the label; 0 where the head's first metric is undefined, as the AUC of labels all alike."""
    head = model.label_heads[label]
    _, value_N = label_cases(cases, head.column, back=model.schema.split == "day")
    first = next(iter(head.metrics))
    if not len(value_N) or math.isnan(head.measure(torch.zeros(len(value_N)), value_N.cpu())[first]):
        return 0
    return len(value_N)
