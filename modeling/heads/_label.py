"""What heads on labels share: which label it is, where it is learned, one number for each state.

B rows, L places, D width, N predictions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from modeling import objectives
from modeling.batches import Batch
from modeling.config import ModelConfig
from modeling.heads import Head
from modeling.inputs import ItemVectors
from modeling.sessions import Sessions
from modeling.splits import training_labels
from schemas import plugins
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
            self._check_session(config, schema)
        self.decide = nn.Linear(config.body.dim, 1)

    def loss(self, h_BLD: Tensor, batch: Batch, items: ItemVectors) -> Tensor:
        """Mean of `error` over the places where a label is known."""
        value_BL = batch[f"label.{self.label}"]
        known_BL = ~value_BL.isnan()
        if self.last_only:
            known_BL &= batch["asks_last"]
        score_N = self.score(h_BLD[known_BL])
        return self.error(score_N, value_BL[known_BL]) if len(score_N) else score_N.sum()

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
        """The mean loss of some scores."""

    @abstractmethod
    def predict(self, h_ND: Tensor) -> Tensor:
        """The label in its own unit for each state, float32 of shape [N]."""

    def measure(self, predicted_N: Tensor, value_N: Tensor) -> dict[str, float]:
        """The metrics of predictions by name; NaN where undefined. Raises InputError for labels that cannot be."""
        self.check(value_N)
        return {name: metric(predicted_N, value_N) for name, metric in self.metrics.items()}

    def _check_session(self, config: ModelConfig, schema: FeatureSchema) -> None:
        """A session's label belongs to its last event, which no state that learns it may have seen."""
        if schema.split == "leave_one_out":
            raise InputError(
                f"heads.{self.label}: the label is of the session, here a user's whole history, and belongs to the event held "
                f"out for the test. Make it a label of events: {{column: {self.column.source}, per: event}}."
            )
        direction = plugins.find(objectives, config.objective.name).direction
        if not self.last_only and direction != "causal":
            raise InputError(
                f"heads.{self.label}: `at: every` needs objective causal. With {config.objective.name} states see a "
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
