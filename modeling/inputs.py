"""From the features of a session file to one vector per event, as the FeatureSchema describes them.

B rows, L places, N of them with an event, D width, E width of item vectors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from modeling.batches import Batch, listed
from modeling.config import ModelConfig
from modeling.draws import dropout
from modeling.features import Feature, forget, read_features, time_feature
from modeling.items import ItemVectors
from modeling.rows import rows_of
from modeling.seconds import AskedWhen, PastVectors
from modeling.sessions import ASKED, GAP, IS_PAST, Sessions
from schemas.columns import EVENT_TYPE, FIRST_ID, ITEM_ID, TIMESTAMP
from schemas.errors import InputError
from schemas.features import FeatureSchema


class Inputs(nn.Module):
    """The item's vector joined by those of side features, and learned positions.

    sum: x = W item + sum(side). concat: x = W [item, side]. sum_times_item: x = W item * (s + sum(side)), s a learned vector
    (Transformers4Rec's element-wise-sum-item-multi, doi:10.1145/3460231.3474255, which has no s: it begins at 1, and the
    product near the item's vector instead of near 0). W is left out where it has nothing to do.
    """

    def __init__(self, config: ModelConfig, schema: FeatureSchema, *, hides: bool = False) -> None:
        """`hides`: some places hold no event, and are read as a vector that is learned for them."""
        super().__init__()
        inputs, dim, item_dim = config.inputs, config.body.dim, config.item_dim
        self.aggregation, self.swap_noise, self.dropout = inputs.aggregation, inputs.swap_noise, config.body.dropout
        self.items = ItemVectors(config, schema)
        time = time_feature(inputs, schema)
        self.time = time.name if time else None
        self.register_buffer("most_seconds", torch.tensor(torch.inf))  # between two events of a session, in training
        self.most_seconds: Tensor
        side = [column for column in read_features(config, schema) if column not in self.items.columns]
        self.side_names = [column.name for column in side]
        self.side = nn.ModuleList(
            Feature(column, inputs, None if self.aggregation == "concat" else dim) for column in side
        )
        moments = (TIMESTAMP, EVENT_TYPE)
        of_events = (column for column in read_features(config, schema) if column.per == "event")
        self.reads_more_than_ids = self.items.stands_without_ids or any(
            column.source not in moments for column in of_events
        )
        self.item_norm = nn.LayerNorm(item_dim) if inputs.feature_norm else None
        width = item_dim
        if self.aggregation == "concat":
            width += sum(feature.width for feature in self.side if isinstance(feature, Feature))
        plain = item_dim == dim and width == item_dim
        self.project = None if plain else _begin_as_item(item_dim, width, dim)
        self.scale_D = nn.Parameter(torch.ones(dim)) if self.aggregation == "sum_times_item" else None
        self.mask_D = nn.Parameter(torch.randn(dim) * 0.02) if hides else None
        self.past = PastVectors(dim) if inputs.past_events else None
        self.asked = AskedWhen(dim) if inputs.query_time else None
        if self.asked and not self.time:
            raise InputError(
                "inputs.query_time needs a feature of seconds since the previous event: add one to the dataset, such as "
                "elapsed: {column: timestamp, encode: elapsed}."
            )
        self.positions = None
        if inputs.positions in ("end", "forward"):
            self.from_end = inputs.positions == "end"
            self.positions = nn.Embedding(schema.max_length + inputs.past_events, dim)
            nn.init.xavier_normal_(self.positions.weight)

    def seconds(self, batch: Batch) -> Tensor | None:
        """Seconds since each session's first event, [B, L], at most as many as training read; None without times."""
        if self.time is None:
            return None
        since_BL = batch.features[self.time].double()
        if GAP in batch.features:
            since_BL = since_BL + (batch.features[GAP].double() - 1).clamp(min=0)
        if ASKED in batch.features:  # of an event that is hidden, its time is said all the same
            since_BL = since_BL + (batch.features[ASKED].double() - 1).clamp(min=0) * batch.masked_BL
        upto_BL = since_BL.cumsum(1)
        first_BL = torch.arange(upto_BL.shape[1], device=upto_BL.device) - batch.layout.positions_BL
        return (upto_BL - upto_BL.gather(1, first_BL)).clamp(max=self.most_seconds)

    def asked_seconds(self, batch: Batch, seconds_BL: Tensor | None) -> Tensor | None:
        """Seconds from each session's first event to what is asked about at a place, [B, L]; None where that is not read."""
        if self.asked is None or seconds_BL is None or ASKED not in batch.features:
            return None
        later_BL = (batch.features[ASKED].double() - 1).clamp(min=0) * ~batch.masked_BL
        return (seconds_BL + later_BL).clamp(max=self.asked.most_seconds)

    def timed(self, sessions: Sessions) -> Sessions:
        """Sessions that say when they are asked, where that is read: as it is said, else the time of the event that is hidden,
        else what was usual in training.
        """
        if self.asked is None or self.time is None:
            return sessions
        asked = sessions.asked
        if asked is None and sessions.following is not None:
            asked = sessions.since(sessions.following.clamp(max=len(sessions.items) - 1), self.time)
        usual = self.asked.usual.to(sessions.starts.device).double().expand(len(sessions))
        asked = usual if asked is None else torch.where(asked.isnan(), usual, asked)
        return replace(sessions, time=self.time, asked=asked)

    def reach(self, read: Sessions, asked: Sessions) -> None:
        """Take from training sessions which ids are read in training, and which items are scored as right ones.

        In inference all further ids are read as unknown: their vectors are as they began, or were only pushed away.
        """
        event_E = read.events_read()
        _, asked_E = asked.event_index()
        items = self.items
        items.reached.set(read.items[event_E])
        if items.tower:
            items.tower.reach(asked.items[asked_E])
        for name, feature in zip(self.side_names, self.side, strict=True):
            assert isinstance(feature, Feature)
            feature.reach(read.events[name][event_E] if name in read.events else read.context[name])
        if self.time is not None:
            self.most_seconds.fill_(read.most_apart(self.time))
        if self.past is not None and GAP in read.events:
            gap_E = read.events[GAP][event_E]
            self.past.begins.reach(gap_E[gap_E > 0] - 1)
        if self.asked is not None and self.time is not None:
            is_first_E = torch.zeros_like(asked.items, dtype=torch.bool)
            is_first_E[asked.starts[asked.places == asked.lengths]] = True
            seconds = asked.since(asked_E[~is_first_E[asked_E]], self.time)
            self.asked.reach(seconds, asked.most_apart(self.time))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Older folders do not say how many seconds training read."""
        state_dict.setdefault(f"{prefix}most_seconds", torch.full_like(self.most_seconds, torch.inf))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def readable(self, histories: Sessions) -> Sessions:
        """Histories without the events of items that training never read, where nothing but their ids is read.

        A history of nothing but them keeps its last one, which is read as unknown.
        """
        if self.reads_more_than_ids:
            return histories
        session_E, event_E = histories.event_index()
        keep_E = self._reads(histories.items[event_E])
        keep_past_P = self._reads(histories.items[histories.past.index()[1]]) if histories.past else None
        if bool(keep_E.all()) and (keep_past_P is None or bool(keep_past_P.all())):
            return histories
        lengths_S = torch.zeros_like(histories.lengths).scatter_add_(0, session_E, keep_E.long())
        last_E = event_E == (histories.starts + histories.lengths - 1)[session_E]
        keep_E |= last_E & (lengths_S == 0)[session_E]
        return histories.keep(keep_E, self.time, keep_past_P)

    def _reads(self, items_E: Tensor) -> Tensor:
        return self.items.reached.reached_V[items_E] & (items_E >= FIRST_ID)

    def forward(self, batch: Batch, *, noise: bool = True) -> Tensor:
        """x_BLD of a batch; in training some of what is read is swapped or forgotten, unless it has to be as it is."""
        names = (ITEM_ID, *self.side_names, *(column.name for column in self.items.columns))
        layout, values = batch.layout, {name: batch.features[name] for name in names}
        if self.training and noise:
            if self.swap_noise:
                there_BL = layout.inside_BL & ~batch.masked_BL
                values = {name: swapped(value, there_BL, self.swap_noise) for name, value in values.items()}
            values[ITEM_ID] = forget(values[ITEM_ID])
        item_BLE = self.items.of(values[ITEM_ID], values)
        if self.item_norm is not None:
            item_BLE = self.item_norm(item_BLE)
        side = [feature(values[name]) for name, feature in zip(self.side_names, self.side, strict=True)]
        x_BLD = self._joined(item_BLE, side)
        if self.mask_D is not None:
            x_BLD = torch.where(batch.masked_BL.unsqueeze(-1), self.mask_D, x_BLD)
        if self.past is not None:
            x_BLD = x_BLD + self.past(batch.features.get(IS_PAST), _gap(batch))
        if self.asked is not None:
            x_BLD = x_BLD + self.asked(batch.features[ASKED])
        if self.positions is not None:
            place_BL = layout.from_end_BL if self.from_end else layout.positions_BL
            x_BLD = x_BLD + rows_of(self.positions.weight, place_BL)
        x_BLD = dropout(x_BLD, self.dropout, self.training)
        return x_BLD * layout.inside_BL.unsqueeze(-1)

    def _joined(self, item_BLE: Tensor, side: list[Tensor]) -> Tensor:
        if self.aggregation == "concat":
            item_BLE = torch.cat([item_BLE, *side], -1)
        x_BLD: Tensor = self.project(item_BLE) if self.project is not None else item_BLE
        if self.scale_D is not None:
            return x_BLD * sum(side, self.scale_D)
        return x_BLD if self.aggregation == "concat" else sum(side, x_BLD)


def _gap(batch: Batch) -> Tensor:
    """The feature GAP; of sessions that come without it (of no user) it is that of a user's first session."""
    given = batch.features.get(GAP)
    layout = batch.layout
    return (layout.inside_BL & (layout.positions_BL == 0)).float() if given is None else given


def _begin_as_item(item_dim: int, width: int, dim: int) -> nn.Linear:
    """A projection of an item's vector and its side features that begins as that of the item alone."""
    project = nn.Linear(width, dim, bias=False)
    with torch.no_grad():
        if item_dim == dim:
            project.weight[:, :dim] = torch.eye(dim)
        nn.init.normal_(project.weight[:, item_dim:], std=0.02)
    return project


def swapped(values: Tensor, there_BL: Tensor, probability: float) -> Tensor:
    """Values [B, L] or [B, L, W], each swapped with this probability for that of another place that holds an event.

    Stochastic swap noise, as in Transformers4Rec (doi:10.1145/3460231.3474255); each feature is swapped on its own.
    """
    there_T = there_BL.flatten()
    size, device = len(there_T), values.device
    rank_T, count = there_T.cumsum(0) - 1, there_T.sum().clamp(min=1)
    place_T, _ = listed(there_T, size)
    shift_T = 1 + (torch.rand(size, device=device, dtype=torch.float64) * (count - 1)).long()
    swap_T = there_T & (torch.rand(size, device=device) < probability)
    from_T = torch.where(swap_T, place_T[(rank_T + shift_T) % count], torch.arange(size, device=device))
    return values.flatten(0, 1)[from_T].view(values.shape)
