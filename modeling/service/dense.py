"""A model as one function of dense arrays, for programs that run no Python: what `export` writes down.

    length [N], item_id and each feature of events [N, L] or [N, L, W], features of sessions [N], asked [N]
    -> query [N, E], whose product with the exported item vectors is the score of each item, and each label's prediction [N]

Encoded ids, oldest event first, padded on the right with 0. It reads of each history what `Recommender` reads: events of items
that the model never read are left out where nothing but ids is read, and then the most recent ones are taken.

N histories, L places, W values where a place has many, D width of states, E width of queries.
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention import Layout
from modeling.batches import Batch
from modeling.config import NEXT_ITEM
from modeling.model import SequenceModel
from modeling.sessions import ASKED
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.errors import InputError
from schemas.features import FeatureColumn

LENGTH, QUERY, ASKED_AFTER = "length", "query", "asked_after"


class Dense(nn.Module):
    """`forward(length_N, *columns)` -> query_NE where the model ranks items, then its labels in order of `labels`."""

    def __init__(self, model: SequenceModel) -> None:
        """Raises InputError for a model that reads past sessions: a history has one session here."""
        super().__init__()
        if model.settings.inputs.past_events:
            raise InputError(
                "A model that reads past sessions (inputs.past_events) cannot be exported: whose past it is, only a program "
                "with the prepared sessions knows. Serve it with `overnight api`, or train one without past_events."
            )
        self.model = deepcopy(model).cpu().eval()
        for module in self.model.modules():
            for name, values in module.named_buffers(recurse=False):
                if values.dtype == torch.int32:
                    setattr(module, name, values.long())  # an id of 32 bits is no index in ONNX
        self.columns = columns_read(model)
        self.labels = tuple(model.label_heads)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what `forward` takes, in order."""
        asked = (ASKED_AFTER,) if self.model.settings.inputs.query_time else ()
        return (LENGTH, *(column.name for column in self.columns), *asked)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what `forward` returns, in order."""
        return ((QUERY,) if NEXT_ITEM in self.model.heads else ()) + self.labels

    def forward(self, length_N: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        asked_N = values[-1] if self.model.settings.inputs.query_time else None
        event = {c.name: v for c, v in zip(self.columns, values, strict=False) if c.per == "event"}
        context = {c.name: v for c, v in zip(self.columns, values, strict=False) if c.per != "event"}
        length_N, event, later_N = self._readable(length_N, event)
        if asked_N is not None:
            asked_N = asked_N + later_N
        length_N, event = self._most_recent(length_N, event)
        h_ND = self._states(length_N, event, context, asked_N)
        out = []
        if NEXT_ITEM in self.model.heads:
            query_NE = self.model.next_item.query(h_ND).float()
            has_bias = self.model.next_item.bias_V is not None
            out.append(F.pad(query_NE, (0, 1), value=1.0) if has_bias else query_NE)
        return (*out, *(head.predict(h_ND) for head in self.model.label_heads.values()))

    def _readable(self, length_N: Tensor, event: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """`Inputs.readable`: how many events are left of each, these moved to the left, and seconds cut off behind the last."""
        inputs, nothing_N = self.model.inputs, torch.zeros_like(length_N, dtype=torch.float64)
        if inputs.reads_more_than_ids:
            return length_N, event, nothing_N
        items_NL = event[ITEM_ID]
        place_L = torch.arange(items_NL.shape[1], device=items_NL.device)
        keep_NL = inputs.items.reached.reached_V[items_NL] & (items_NL >= FIRST_ID) & (place_L < length_N[:, None])
        none_N1 = ~keep_NL.any(1, keepdim=True)
        keep_NL = keep_NL | (none_N1 & (place_L == length_N[:, None] - 1))
        kept_N = keep_NL.sum(1)
        # What is kept comes first, in its order: by place, behind all others where it is left out.
        order_NL = torch.where(keep_NL, place_L, place_L + items_NL.shape[1]).argsort(1)
        moved = {name: _gather(values, order_NL) for name, values in event.items()}
        if inputs.time in event:
            upto_NL = event[inputs.time].double().cumsum(1)
            upto_kept_NL = upto_NL.gather(1, order_NL)
            before_NL = upto_kept_NL.gather(1, (place_L - 1).clamp(min=0).expand(items_NL.shape[0], -1))
            grown_NL = upto_kept_NL - torch.where(place_L > 0, before_NL, 0.0)
            moved[inputs.time] = grown_NL.to(event[inputs.time].dtype)
            ends_N = upto_NL.gather(1, (length_N - 1)[:, None])[:, 0]
            nothing_N = ends_N - upto_kept_NL.gather(1, (kept_N - 1)[:, None])[:, 0]
        return kept_N, moved, nothing_N

    def _most_recent(self, length_N: Tensor, event: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        most = self.model.longest - int(self.model.objective.asks)
        extra_N = (length_N - most).clamp(min=0)
        place_L = torch.arange(event[ITEM_ID].shape[1], device=length_N.device)
        from_NL = (place_L + extra_N[:, None]).clamp(max=event[ITEM_ID].shape[1] - 1)
        return length_N - extra_N, {name: _gather(values, from_NL) for name, values in event.items()}

    def _states(
        self, length_N: Tensor, event: dict[str, Tensor], context: dict[str, Tensor], asked_N: Tensor | None
    ) -> Tensor:
        asks = int(self.model.objective.asks)
        places_N = length_N + asks
        if asks:
            event = {name: F.pad(values, (0, 0) * (values.dim() - 2) + (0, 1)) for name, values in event.items()}
        place_L = torch.arange(event[ITEM_ID].shape[1], device=length_N.device)
        inside_NL, there_NL = place_L < places_N[:, None], place_L < length_N[:, None]
        features = {name: _where(there_NL, values) for name, values in event.items()}
        features |= {
            name: _where(inside_NL, values[:, None].expand(-1, event[ITEM_ID].shape[1]))
            for name, values in context.items()
        }
        positions_NL, masked_NL = place_L.expand(length_N.shape[0], -1), inside_NL & ~there_NL
        layout = Layout(
            inside_NL.long(),
            torch.where(inside_NL, positions_NL, 0),
            direction=self.model.objective.direction,
            from_end_BL=torch.where(inside_NL, places_N[:, None] - 1 - positions_NL, 0),
            order_BL=masked_NL.long() if self.model.objective.direction == "permuted" else None,
        )
        if asked_N is not None:
            features[ASKED] = self._asked(features, length_N, inside_NL, masked_NL, asked_N)
        nothing = length_N.new_zeros(0)
        batch = Batch(layout, features, masked_NL, nothing, nothing, nothing.float(), nothing.bool(), {})
        h_NLD = self.model.encode(batch)
        return h_NLD.gather(1, (places_N - 1)[:, None, None].expand(-1, 1, h_NLD.shape[2]))[:, 0]

    def _asked(
        self, features: dict[str, Tensor], length_N: Tensor, inside_NL: Tensor, masked_NL: Tensor, asked_N: Tensor
    ) -> Tensor:
        """`batches.asked_when` of one session a row."""
        causal = self.model.objective.direction == "causal"
        place_L = torch.arange(inside_NL.shape[1], device=length_N.device)
        number_NL = place_L.expand(length_N.shape[0], -1) + int(causal)
        since_NL = features[str(self.model.inputs.time)].double()
        since_NL = since_NL.gather(1, number_NL.clamp(max=inside_NL.shape[1] - 1))
        since_NL = torch.where(number_NL < length_N[:, None], since_NL, asked_N[:, None].double())
        return torch.where(inside_NL & (causal | masked_NL), 1 + since_NL, 0.0).float()


def columns_read(model: SequenceModel) -> tuple[FeatureColumn, ...]:
    """The columns of session files that a model reads, in the order of its schema."""
    inputs = model.inputs
    read = {ITEM_ID, *inputs.side_names, *(column.name for column in inputs.items.columns), inputs.time}
    return tuple(column for column in model.schema.columns if column.name in read)


def _gather(values: Tensor, place_NL: Tensor) -> Tensor:
    """Values [N, L] or [N, L, W] at other places of their rows."""
    if values.dim() == 2:
        return values.gather(1, place_NL)
    return values.gather(1, place_NL[..., None].expand(-1, -1, values.shape[2]))


def _where(there_NL: Tensor, values: Tensor) -> Tensor:
    """Zero where nothing is."""
    return values * (there_NL if values.dim() == 2 else there_NL[..., None])
