"""What heads on labels share: which label it is, where it is learned, one number for each state.

B rows, L places, D width, N predictions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from modeling.attention import Direction
from modeling.batches import Batch
from modeling.config import ModelConfig
from modeling.heads import Head
from modeling.items import ItemVectors
from modeling.sessions import Sessions
from modeling.splits import training_labels
from schemas.errors import InputError, unknown
from schemas.features import FeatureSchema, LabelColumn

Metric = Callable[[Tensor, Tensor], float]  # of predictions and labels
At = Annotated[
    Literal["last", "every"] | None,
    Field(
        description="Learn where a session's last event is asked about, or wherever one is. Empty: last for a label per "
        "session, every for one per event."
    ),
]


class LabelHead(Head):
    """A linear layer that foretells the label of the event asked about, or of its session."""

    metrics: ClassVar[dict[str, Metric]]  # the first chooses the best weights where no item is predicted

    def __init__(self, label: str, config: ModelConfig, schema: FeatureSchema, at: At) -> None:
        super().__init__(label, config, schema)
        self.column = find_label(schema, label)
        self.last_only = at == "last" if at else self.column.per == "session"
        if hasattr(nn.ModuleDict, label) or "." in label:
            raise InputError(f"A head cannot be called {label!r}: give the label another name with the step rename.")
        if self.column.per == "session":
            self._check_split(schema)
        self.objective = config.objective.name
        self.decide = nn.Linear(config.body.dim, 1)

    def loss(self, h_BLD: Tensor, batch: Batch, items: ItemVectors) -> Tensor:
        """Mean of `error` over the predictions whose label is known, 0 where none is."""
        weight_N, value_N = self._weights(batch), batch.labels[self.label]
        known_N = weight_N > 0
        any_known_1 = weight_N.argmax(keepdim=True)  # a value that `error` takes, for those that have none
        value_N = torch.where(known_N, value_N, value_N.gather(0, any_known_1).nan_to_num())
        error_N = self.error(self.score(batch.states(h_BLD)), value_N)
        total = batch.total(weight_N, self._weights)
        return (error_N * weight_N).sum() / total.clamp(min=torch.finfo(weight_N.dtype).tiny)

    def _weights(self, batch: Batch) -> Tensor:
        """Of each prediction; of those whose label is not known 0."""
        return batch.weight_N * (~batch.labels[self.label].isnan() & (batch.is_last_N | (not self.last_only)))

    def score(self, h_ND: Tensor) -> Tensor:
        """A number for each state, float32 of shape [N]."""
        score_N: Tensor = self.decide(h_ND).squeeze(-1).float()
        return score_N

    def start(self, train: Sessions) -> None:
        """Begin at what the labels alone tell, before training.

        Raises:
            InputError: when there is none, or one that this kind of head cannot predict.
        """
        value_N = training_labels(train, self.column)
        if not len(value_N):
            raise InputError(f"heads.{self.label}: the label is null wherever training could learn it.")
        self.check(value_N)
        self.begin_at(value_N)

    @abstractmethod
    def check(self, value_N: Tensor) -> None:
        """Raise InputError for labels, none of them null, that this kind of head cannot predict."""

    @abstractmethod
    def begin_at(self, value_N: Tensor) -> None:
        """Set what follows from the training labels alone."""

    @abstractmethod
    def error(self, score_N: Tensor, value_N: Tensor) -> Tensor:
        """The loss of each score, [N]."""

    @abstractmethod
    def predict(self, h_ND: Tensor) -> Tensor:
        """The label in its own unit for each state, float32 of shape [N]."""

    def measure(self, predicted_N: Tensor, value_N: Tensor) -> dict[str, float]:
        """The metrics of predictions by name; NaN where undefined. Raises InputError for labels that cannot be."""
        self.check(value_N)
        return {name: metric(predicted_N, value_N) for name, metric in self.metrics.items()}

    def _check_split(self, schema: FeatureSchema) -> None:
        """A session's label belongs to its last event, which no state that learns it may have seen."""
        if schema.split == "leave_one_out":
            raise InputError(
                f"heads.{self.label}: the label is of the session, here a user's whole history, and belongs to the event held "
                f"out for the test. Make it a label of events: {{column: {self.column.source}, per: event}}."
            )

    def keep_to(self, direction: Direction) -> None:
        """Nor may states that look ahead learn it before the end."""
        if self.column.per == "session" and not self.last_only and direction != "causal":
            raise InputError(
                f"heads.{self.label}: `at: every` needs objective causal. With {self.objective} states see a "
                f"session's last event, which its label belongs to: leave `at` out."
            )


def find_label(schema: FeatureSchema, name: str) -> LabelColumn:
    """The label of that name.

    Raises:
        InputError: when the sessions have none of that name, with those they have.
    """
    for column in schema.labels:
        if column.name == name:
            return column
    raise unknown("label", name, [column.name for column in schema.labels])
