"""Replaced token: events are hidden and predicted, then what was predicted is read and told from what happened (ELECTRA,
arXiv:2003.10555).

Pass one is the generator: masked events, the heads' losses. An item drawn from its next-item scores fills each hidden
place, no gradient goes through the draw, and pass two is the discriminator: at every place, is this the item that was
there? A draw that hits the right item counts as original. ELECTRA has two bodies and keeps the discriminator; here one body
does both, since inference needs the body that predicts items, and pass two teaches it from every place instead of a few.
Pass two reads items alone, no side features of events: at hidden places they would tell the right item, and elsewhere
their presence would tell that nothing was replaced.

B rows, L places, D width, E width of item vectors, V items, Q hidden places, P places of sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modeling.attention import Direction
from modeling.batches import Batch
from modeling.config import ModelConfig
from modeling.objectives import LayOut, Objective, Task
from modeling.objectives.masked import choose
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.features import FeatureSchema

if TYPE_CHECKING:
    from modeling.model import SequenceModel

SCORES_AT_ONCE = 1 << 24  # 64 MiB of float32


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
        weight: Annotated[float, Field(gt=0, description="Of the discriminator's loss beside the heads'.")] = 1.0,
    ) -> None:
        self.probability, self.last, self.weight = probability, last, weight

    def task(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Task:
        """All events to predict are hidden."""
        places = lay_out(sessions)
        asked_BL, _ = choose(places, len(sessions), self.probability, self.last, generator)
        event_BL = places.event_BL
        return Task(places, event_BL.masked_fill(asked_BL, -1), event_BL.masked_fill(~asked_BL, -1))

    def parts(self, config: ModelConfig, schema: FeatureSchema) -> nn.Module:
        """The discriminator's head."""
        return nn.Sequential(nn.LayerNorm(config.body.dim), nn.Linear(config.body.dim, 1))

    def loss(self, model: SequenceModel, batch: Batch) -> Tensor:
        """The heads' losses + weight * mean binary cross-entropy over all places."""
        h_BLD = model.encode(batch)
        logit_P, replaced_P = self.judge(model, batch, h_BLD)
        judged = F.binary_cross_entropy_with_logits(logit_P.float(), replaced_P.float())
        return model.heads_loss(h_BLD, batch) + self.weight * judged

    def judge(self, model: SequenceModel, batch: Batch, h_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """For every event, row by row: the discriminator's logit that its item was replaced, and whether it was.

        `h_BLD` are the generator's states of the batch.
        """
        assert model.objective_parts is not None
        hidden_BL, read_BL = batch["masked"], batch[ITEM_ID]
        proposed_Q = propose(model, h_BLD[hidden_BL]).to(read_BL.dtype)
        item_BL = read_BL.masked_scatter(hidden_BL, proposed_Q)
        others = [column.name for column in model.schema.columns if column.per == "event" and column.name != ITEM_ID]
        unread = {name: torch.zeros_like(batch[name]) for name in others}
        corrupted = batch | unread | {ITEM_ID: item_BL, "masked": torch.zeros_like(hidden_BL)}
        inside_BL = batch["segments"] > 0
        logit_P = model.objective_parts(model.encode(corrupted)[inside_BL]).squeeze(-1)
        return logit_P, (hidden_BL & (item_BL != batch["targets"]))[inside_BL]


@torch.no_grad()
def propose(model: SequenceModel, h_QD: Tensor) -> Tensor:
    """An item id for each state, drawn from the softmax of its scores: the largest score + Gumbel noise. Shape [Q].

    All scores of a few states at a time: memory grows with the catalogue, not with the batch.
    """
    head = model.next_item
    query_QE, items_VE = head.query(h_QD), head.catalogue(model.inputs.items)
    drawn = []
    for query in query_QE.split(max(1, SCORES_AT_ONCE // len(items_VE))):
        score = (query @ items_VE.T).float()
        if head.bias_V is not None:
            score += head.bias_V
        drawn.append((score - torch.empty_like(score).exponential_().log_()).argmax(1))
    return torch.cat(drawn) + FIRST_ID
