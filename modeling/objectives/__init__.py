"""What is predicted from what; one file each, found by name.

An objective lays sessions out, hides some events and asks about them. Everything predicted at a place, the item and the
labels alike, belongs to the event asked about there, which the state at that place never saw.

B rows, L places, D width, S sessions, P places of sessions in a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from modeling.attention import Direction
from modeling.batches import Batch, Places
from modeling.config import ModelConfig
from modeling.sessions import Sessions
from schemas.features import FeatureSchema

if TYPE_CHECKING:
    from modeling.model import SequenceModel

LayOut = Callable[..., Places]  # lay_out with what the body needs already given: (sessions, ask=False)


@dataclass(frozen=True)
class Task:
    """What is read and what is asked in a batch.

    `event_BL` is the event read at each place: the one that belongs there, another one, or -1 to hide it. `asked_BL` is the
    event to be predicted from the state at each place; -1: none. `extra` is added to the batch as it is.
    """

    places: Places
    event_BL: Tensor
    asked_BL: Tensor
    extra: Batch = field(default_factory=dict)


class Objective(ABC):
    """A rule of training, and the rule of inference that goes with it. Options are keyword-only parameters of `__init__`."""

    direction: ClassVar[Direction]  # the attention it needs: with another it would leak, or learn nothing
    asks: ClassVar[bool] = (
        False  # inference reads an empty place behind the history instead of the history's last event
    )
    needs_next_item: ClassVar[bool] = False  # learns from what the next-item head proposes

    @abstractmethod
    def task(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Task:
        """A training task from whole sessions, of two events at least."""

    def query(self, histories: Sessions, lay_out: LayOut) -> Task:
        """The task of inference: what comes after each history is asked at the last place of each session."""
        places = lay_out(histories, ask=self.asks)
        return Task(places, places.event_BL, torch.full_like(places.event_BL, -1))

    def parts(self, config: ModelConfig, schema: FeatureSchema) -> nn.Module | None:
        """Weights that only training needs, such as a discriminator; saved with the model."""
        return None

    def loss(self, model: SequenceModel, batch: Batch) -> Tensor:
        """What training minimises: the heads' losses at the places asked about."""
        return model.heads_loss(model.encode(batch), batch)


def some_but_not_all(chosen_BL: Tensor, segments_BL: Tensor, draw_BL: Tensor) -> Tensor:
    """The places chosen, mended so that each session has at least one chosen and one other: where none is chosen, the one
    with the least draw joins; where all are, the one with the greatest leaves. Draws are in [0, 1); padding is never chosen.
    """
    inside_BL = segments_BL > 0
    session_P = segments_BL[inside_BL]
    rank_P = (draw_BL - chosen_BL.to(draw_BL.dtype))[inside_BL]  # those chosen come first
    limit_S = torch.zeros(int(session_P.max()) + 1, dtype=rank_P.dtype, device=rank_P.device)
    least_P, greatest_P = (
        limit_S.scatter_reduce(0, session_P, rank_P, reduction, include_self=False)[session_P]
        for reduction in ("amin", "amax")
    )
    chosen_P = (chosen_BL[inside_BL] | (rank_P == least_P)) & (rank_P < greatest_P)
    return torch.zeros_like(inside_BL).masked_scatter_(inside_BL, chosen_P)
