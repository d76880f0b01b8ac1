"""Replaced token: events are hidden and predicted, then predictions are read and distinguished from what happened (ELECTRA,
arXiv:2003.10555).

Pass one is the generator: masked events, the heads' losses. An item drawn from its next-item scores fills each hidden
place, no gradient goes through the draw, and pass two is the discriminator: at every place, is this the item that was
there? A draw that hits the right item counts as original. ELECTRA has two bodies and keeps the discriminator; here one body
does both, since inference needs the body that predicts items, and pass two teaches it from every place instead of a few.
Pass two reads items alone, no side features of events: at hidden places they would tell the right item, and elsewhere
their presence would tell that nothing was replaced. Nothing is swapped or forgotten there (inputs.swap_noise): an item that
is not the one that was there must be one that was proposed.

B rows, L places, D width, T = B * L, N hidden places.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modeling.attention import Direction
from modeling.batches import Batch
from modeling.config import ModelConfig
from modeling.objectives import LayOut, Model, Objective, room_for
from modeling.objectives.masked import choose
from modeling.sessions import Sessions
from schemas.columns import ITEM_ID
from schemas.features import FeatureSchema


class ReplacedToken(Objective):
    """Hidden events are predicted, and predictions are told from what happened (arXiv:2003.10555)."""

    direction: ClassVar[Direction] = "both"
    asks: ClassVar[bool] = True
    needs_next_item: ClassVar[bool] = True

    def __init__(
        self,
        *,
        probability: Annotated[
            float, Field(gt=0, lt=1, description="That an event is hidden; at least one is, and one is not.")
        ] = 0.15,
        last: Annotated[
            float, Field(ge=0, le=1, description="Share of sessions in which only the last event is hidden.")
        ] = 0.1,
        weight: Annotated[float, Field(gt=0, description="Of the discriminator's loss, next to those of heads.")] = 1.0,
    ) -> None:
        self.probability, self.last, self.weight = probability, last, weight

    def batch(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Batch:
        """All events to predict are hidden."""
        layout = lay_out(sessions)
        asked_BL, _ = choose(layout, sessions, self.probability, self.last, generator)
        event_BL = layout.event_BL
        return self.make_batch(
            sessions, layout, event_BL.masked_fill(asked_BL, -1), event_BL.masked_fill(~asked_BL, -1)
        )

    def capacity(self, num_places: int, num_sessions: int) -> int:
        """The share of events that is hidden, and one more a session."""
        return room_for(self.probability, num_places, num_sessions)

    def parts(self, config: ModelConfig, schema: FeatureSchema) -> nn.Module:
        """The discriminator's head."""
        return nn.Sequential(nn.LayerNorm(config.body.dim), nn.Linear(config.body.dim, 1))

    def loss(self, model: Model, batch: Batch) -> Tensor:
        """The heads' losses + weight * mean binary cross-entropy over all places."""
        h_BLD = model.encode(batch)
        logit_BL, replaced_BL = self.judge(model, batch, h_BLD)
        judged_BL = F.binary_cross_entropy_with_logits(logit_BL.float(), replaced_BL.float(), reduction="none")
        inside_BL = batch.layout.inside_BL
        judged = (judged_BL * inside_BL).sum() / batch.total(inside_BL, lambda whole: whole.layout.inside_BL)
        return model.heads_loss(h_BLD, batch) + self.weight * judged

    def judge(self, model: Model, batch: Batch, h_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """At every place: the discriminator's logit that its item was replaced, and whether it was, [B, L] each.

        `h_BLD` are the generator's states of the batch.
        """
        assert model.objective_parts is not None
        read_BL = batch.features[ITEM_ID]
        item_BL = filled(read_BL, batch, model.propose(batch.states(h_BLD)))
        target_BL = filled(read_BL, batch, batch.target_N)
        side_names = [
            column.name for column in model.schema.columns if column.per == "event" and column.name != ITEM_ID
        ]
        unread = {name: torch.zeros_like(batch.features[name]) for name in side_names}
        corrupted = replace(
            batch,
            features=batch.features | unread | {ITEM_ID: item_BL},
            masked_BL=torch.zeros_like(batch.masked_BL),
        )
        logit_BL: Tensor = model.objective_parts(model.encode(corrupted, noise=False)).squeeze(-1)
        return logit_BL, item_BL != target_BL


def filled(values_BL: Tensor, batch: Batch, values_N: Tensor) -> Tensor:
    """`values_BL` with `values_N` at the places asked about."""
    room_T = F.pad(values_BL.flatten(), (0, 1))  # the last is for what only fills the room
    place_N = torch.where(batch.weight_N > 0, batch.asked_N, len(room_T) - 1)
    return room_T.scatter(0, place_N, values_N.to(room_T.dtype))[:-1].view(values_BL.shape)
