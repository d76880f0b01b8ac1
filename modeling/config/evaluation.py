"""What can be set about evaluation and promotion, and the names of metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from modeling.config.guards import GuardsConfig
from modeling.config.model import NEXT_ITEM, Concern, HeadConfig
from modeling.config.splits import SplitConfig
from schemas.errors import InputError, unknown

METRICS = ("recall", "precision", "hitrate", "map", "mrr", "ndcg")
LABEL_METRICS = {"binary": ("auc", "log_loss", "calibration_error"), "regression": ("rmse", "mae")}  # by kind of head
LOWER_IS_BETTER = ("log_loss", "calibration_error", "rmse", "mae")


class Goal(Concern):
    """What validation chooses by: the metric, the cut-off and the rule of seen items that promotion goes by."""

    metric: str = "ndcg@20"
    filter_seen: bool = False

    @model_validator(mode="after")
    def _known_metric(self) -> Self:
        name, at, cutoff = self.metric.partition("@")
        if at and (name not in METRICS or not cutoff.isdigit() or not int(cutoff)):
            raise ValueError(f"metric {self.metric!r} is none of {', '.join(METRICS)} with a cut-off, as in ndcg@20")
        return self

    @property
    def cutoff(self) -> int | None:
        """The k of metric@k; None for a metric of a label."""
        k = self.metric.rpartition("@")[2]
        return int(k) if k.isdigit() else None


class EvaluationConfig(Concern):
    """How models are compared."""

    model_config = ConfigDict(title="Evaluation")

    cutoffs: tuple[PositiveInt, ...] = Field(
        (5, 10, 20), min_length=1, title="Cut-offs", description="Every k of metric@k."
    )
    filter_seen: bool = Field(
        False, title="Filter seen items", description="Never recommend what the session already holds."
    )
    rules: bool = Field(
        False,
        title="Rules",
        description="Rank and recommend under the rules of the dataset (serving.rules), as the service does; a target that "
        "they forbid is a miss.",
    )
    baselines: tuple[str, ...] = Field(
        ("popularity", "recent_popularity", "item_knn", "markov", "second_order_markov", "vstan"),
        title="Baselines",
        description="Files of modeling/evaluation/baselines, measured on the same sessions. Labels have one more, `mean`.",
    )

    split: SplitConfig = Field(SplitConfig(), title="Split", description="What is tested, and so what is trained on.")
    lists: NonNegativeInt = Field(
        10_000,
        title="Lists",
        description="Test sessions, evenly spread, whose lists are judged: coverage, diversity and so on. 0: none.",
    )
    diversity: str | None = Field(
        None,
        title="Diversity by",
        description="Feature of items by which two items of a list are alike or not. Empty: by the model's item vectors.",
    )

    def check_diversity(self, features: Collection[str]) -> None:
        """Raise InputError when items have no such feature; `features` are those with one value an item."""
        if self.diversity is not None and self.diversity not in features:
            raise unknown("evaluation.diversity", self.diversity, features)

    @model_validator(mode="after")
    def _no_duplicates(self) -> Self:
        for name, given in (("cutoffs", self.cutoffs), ("baselines", self.baselines)):
            if twice := sorted({str(value) for value in given if given.count(value) > 1}):
                raise ValueError(f"{name}: {', '.join(twice)} is named twice")
        return self


class PromotionConfig(Concern):
    """When a new model takes over."""

    model_config = ConfigDict(title="Promotion")

    metric: str = Field(
        "ndcg@20",
        title="Metric",
        description="Compared between the new model and the one in service: as in ndcg@20, or LABEL/auc, LABEL/rmse...",
    )
    min_gain: float | None = Field(
        None,
        allow_inf_nan=False,
        title="Least gain",
        description="Relative gain that must be shown instead of the margin: 0.01 is one per cent, 0 any gain.",
    )
    margin: float = Field(
        0.01,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        title="Margin",
        description="Relative loss that a new model may have at worst, to take over by being newer: 0.01 is one per cent.",
    )
    confidence: float = Field(
        0.99,
        gt=0.5,
        lt=1,
        title="Confidence",
        description="How sure a verdict must be. 0.99 allows four wrong ones in a year of nights, if all were at the limit.",
    )
    seed_scatter: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        title="Scatter between seeds",
        description="Relative standard deviation of the metric between trainings that differ in their seed alone.",
    )

    seed_scatter_every: NonNegativeInt = Field(
        0,
        title="Measure the scatter every",
        description="Days after which the scatter between seeds is measured again, by more trainings of the night's recipe. "
        "7: a week. 0: never, as such a night takes three times as long.",
    )
    seed_scatter_seeds: PositiveInt = Field(
        2,
        le=20,
        title="More seeds",
        description="Trainings beyond the night's own that a measurement of the scatter does.",
    )
    clicks: bool = Field(
        False,
        title="Clicks decide",
        description="Whether a model takes over from the one in service is said by the clicks of users who get it as the "
        "second model (serving.side_by_side); what would be promoted by its metric is held until then.",
    )
    guards: GuardsConfig = Field(
        GuardsConfig(), title="Guards", description="Limits beyond which a new model is held, whatever its metric."
    )

    def check(self, evaluation: EvaluationConfig, heads: Mapping[str, HeadConfig]) -> None:
        """Raise InputError when the metric is not one that the evaluation computes for these heads, or a guard's value not."""
        self._check_coverage(evaluation, heads)
        known: list[str] = []
        for label, head in heads.items():
            if head.name == NEXT_ITEM:
                known += [f"{name}@{k}" for k in evaluation.cutoffs for name in METRICS]
            elif head.name in LABEL_METRICS:
                known += [f"{label}/{name}" for name in LABEL_METRICS[head.name]]
            elif self.metric.startswith(f"{label}/"):
                return  # a kind of head that is not ours: its file says what it measures
        if self.metric not in known:
            raise unknown("promotion.metric", self.metric, known)

    def _check_coverage(self, evaluation: EvaluationConfig, heads: Mapping[str, HeadConfig]) -> None:
        if self.guards.coverage is None:
            return
        missing = "evaluation.lists is 0" if not evaluation.lists else "no head predicts the next item"
        if not evaluation.lists or all(head.name != NEXT_ITEM for head in heads.values()):
            raise InputError(
                f"promotion.guards.coverage is {self.guards.coverage:g}, but {missing}, so no list is made: set another "
                "number of lists, or leave the guard out (promotion.guards.coverage=null)."
            )
