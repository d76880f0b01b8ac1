"""What is predicted from what; one file each, found by name.

An objective lays sessions out, hides some events and asks about them. Everything predicted at a place, the item and the
labels alike, belongs to the event asked about there, which the state at that place never saw.

B rows, L places, D width, S sessions, N predictions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from modeling.attention import Direction, Layout
from modeling.batches import Batch, make_batch, make_query
from modeling.config import ModelConfig
from modeling.sessions import Sessions
from schemas.errors import InputError
from schemas.features import FeatureSchema

LayOut = Callable[
    ..., Layout
]  # batches.lay_out with what the body and the device need already given: (sessions, ask=False)


class Model(Protocol):
    """What an objective asks of the model that it trains."""

    objective_parts: nn.Module | None  # of `Objective.parts`
    schema: FeatureSchema

    def encode(self, batch: Batch, *, noise: bool = True) -> Tensor:
        """Hidden states h_BLD; without `noise` of what the batch holds, with nothing swapped or forgotten."""

    def heads_loss(self, h_BLD: Tensor, batch: Batch) -> Tensor:
        """The weighted sum of the heads' losses."""

    def propose(self, h_ND: Tensor) -> Tensor:
        """Item ids drawn from the next-item scores of some states, [N]."""


class Objective(ABC):
    """A rule of training, and the rule of inference that goes with it. Options are keyword-only parameters of `__init__`."""

    direction: ClassVar[Direction]  # the attention it needs: with another it would leak, or learn nothing
    asks: ClassVar[bool] = (
        False  # inference reads an empty place behind the history instead of the history's last event
    )
    drops: ClassVar[int] = 0  # last events of each session that get no place in training
    says_when: ClassVar[bool] = (
        False  # goes with inputs.query_time: a place tells the time of what is asked of it alone
    )
    needs_next_item: ClassVar[bool] = False  # learns from what the next-item head proposes

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Raise InputError for settings of a model that this objective would make nothing of, or leak by."""
        if config.inputs.query_time and not cls.says_when:
            raise InputError(
                f"inputs.query_time does not go with the objective {config.objective.name}, which would read the time of more "
                "than what is asked: take causal or masked."
            )

    @abstractmethod
    def batch(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Batch:
        """A training batch from whole sessions, of two events at least (or none, where they only fill the room).

        All chance comes from the generator, and nothing asks the device for a value or the size of a result.
        """

    def query(self, histories: Sessions, lay_out: LayOut) -> Batch:
        """The batch of inference: what comes after each history is asked at the last place of each session."""
        return make_query(histories, lay_out(histories, ask=self.asks))

    def make_batch(self, sessions: Sessions, layout: Layout, event_BL: Tensor, asked_BL: Tensor) -> Batch:
        """`batches.make_batch` with as many predictions as the layout leaves room for: on a CPU, exactly those asked for."""
        most = layout.most if layout.most_asked is None else layout.most_asked
        capacity = None if layout.most is None or most is None else min(most, self.capacity(most, len(sessions)))
        return make_batch(sessions, layout, event_BL, asked_BL, capacity)

    def capacity(self, num_places: int, num_sessions: int) -> int:
        """How many predictions get room in a batch of at most so many places and sessions; what is more is left out."""
        return num_places

    def parts(self, config: ModelConfig, schema: FeatureSchema) -> nn.Module | None:
        """Weights that only training needs, such as a discriminator; saved with the model."""
        return None

    def loss(self, model: Model, batch: Batch) -> Tensor:
        """What training minimises: the heads' losses at the places asked about."""
        return model.heads_loss(model.encode(batch), batch)


def some_but_not_all(chosen_BL: Tensor, segments_BL: Tensor, draw_BL: Tensor, num_sessions: int) -> Tensor:
    """The places chosen, mended so that each session has at least one chosen and one other: where none is chosen, the one
    with the least draw joins; where all are, the one with the greatest leaves. Draws are in [0, 1); padding is never chosen.
    """
    rank_BL = draw_BL - chosen_BL.to(draw_BL.dtype)  # those chosen come first
    limit_S = rank_BL.new_zeros(1 + num_sessions)  # the first is that of padding
    least_BL, greatest_BL = (
        limit_S.scatter_reduce(0, segments_BL.flatten(), rank_BL.flatten(), reduction, include_self=False)[segments_BL]
        for reduction in ("amin", "amax")
    )
    return (chosen_BL | (rank_BL == least_BL)) & (rank_BL < greatest_BL) & (segments_BL > 0)


def room_for(share: float, num_places: int, num_sessions: int, spread: float = 1.0) -> int:
    """Room for a share of places chosen independently in lumps of `spread`, and one more a session: too little once in 1e9."""
    deviation = math.sqrt(num_places * share * spread)
    return math.ceil(num_sessions + share * num_places + 6 * deviation)
