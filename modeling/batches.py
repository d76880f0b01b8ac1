"""Batches: sessions laid out in places, what is read at each place, and what is asked.

On a CPU, sessions share rows of about 32 places and exactly the places asked about are listed. A GPU must never be asked how
large something is, since the host would wait for all that it has to do: there a `Shape`, known to the host beforehand, says how
much room is made, and what is left over is padding.

S sessions, E events, B rows, L places in a row, T = B * L, N predictions.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from modeling.attention import FLEX_BLOCK, Direction, Layout
from modeling.draws import Rows
from modeling.sessions import ASKED, IS_PAST, Sessions

ROW_LENGTH = 32  # of a CPU: attention costs a row's square, and up to here little of a row is left empty (LOG.md)
BLOCK = 64  # places of a flat row whose attention is computed together, unless sessions are longer


@dataclass(frozen=True)
class Batch:
    """Sessions in places, what is read there, and N predictions asked of the states at some of them.

    `features` are read, [B, L] or [B, L, W] by name, 0 where there is nothing; `masked_BL` are places of sessions whose event
    is not read. `asked_N` numbers the places asked about row by row; `target_N` is the item to predict (0: none), `labels` by
    name are float32 [N] (NaN: not to be learned), `is_last_N` whether the event asked about is its session's last. `weight_N`
    sums to 1: predictions that only fill the room have weight 0, no target and no labels. Of a batch that several processes
    share, each has its `part`; the weights of all parts together sum to 1.
    """

    layout: Layout
    features: dict[str, Tensor]
    masked_BL: Tensor
    asked_N: Tensor
    target_N: Tensor
    weight_N: Tensor
    is_last_N: Tensor
    labels: dict[str, Tensor]
    part: Part | None = None

    def states(self, h_BLD: Tensor) -> Tensor:
        """The hidden states at the places asked about, [N, D]."""
        return h_BLD.flatten(0, 1)[self.asked_N]

    def total(self, weight_N: Tensor, weigh: Callable[[Batch], Tensor]) -> Tensor:
        """The sum of weights over the whole batch: of `weight_N`, which `weigh` gives for this one. A scalar."""
        return weight_N.sum() if self.part is None else weigh(self.part.whole).sum()

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of the batch, always in the same order."""
        layout = (getattr(self.layout, about.name) for about in fields(self.layout))
        own = (self.masked_BL, self.asked_N, self.target_N, self.weight_N, self.is_last_N)
        for value in (*layout, *self.features.values(), *own, *self.labels.values()):
            if isinstance(value, Tensor):
                yield value


@dataclass(frozen=True)
class Part:
    """Of which batch a process has a part.

    With `rows`, its predictions are those of the whole batch from number `first` on, and what is drawn for some is drawn for
    all of them.
    """

    whole: Batch
    first: int
    rows: Rows | None


@dataclass(frozen=True)
class Shape:
    """How much room a batch gets: all sessions together have at most `num_places`, and none more than `longest`.

    `flat`: all in one row, whose length follows from these two numbers alone; otherwise one session a row, `longest` wide. At
    most `num_asked` places can be asked about, where that is said: at those of past events nothing is.
    """

    num_places: int
    longest: int
    flat: bool
    num_asked: int | None = None

    @property
    def block(self) -> int:
        """C: no session is longer, so that it lies in two neighbouring blocks at most."""
        return BLOCK if self.longest <= BLOCK else -(-self.longest // FLEX_BLOCK) * FLEX_BLOCK

    @property
    def width(self) -> int:
        """T of a flat row: whole blocks of either kind."""
        whole = max(self.block, FLEX_BLOCK)
        return max(math.ceil(self.num_places / whole), 1) * whole

    @classmethod
    def of(cls, lengths_S: Tensor, flat: bool) -> Shape:
        """The shape of sessions of these lengths: their device is asked, once."""
        longest, num_places = torch.stack([lengths_S.max(), lengths_S.sum()]).tolist()
        return cls(num_places, max(longest, 1), flat)


def lay_out(
    sessions: Sessions,
    *,
    packed: bool,
    ask: bool = False,
    direction: Direction = "causal",
    shape: Shape | None = None,
    row_length: int = ROW_LENGTH,
) -> Layout:
    """Lay sessions side by side in rows of about `row_length` places; not packed, each in a row of its own.

    Past events come before the session's own, in the same segment. With `ask`, each session ends in a place that holds no
    event. With a `shape`, what is made is as large as that says.
    """
    lengths_S = sessions.places + int(ask)
    if shape is not None:
        layout = _flat_row(lengths_S, shape) if shape.flat else _one_each(lengths_S, shape.longest, shape.num_places)
    else:
        layout = _rows(lengths_S, row_length) if packed else _one_each(lengths_S, int(lengths_S.max()), None)
    session_BL = layout.session_BL
    there_BL = layout.inside_BL & (layout.positions_BL < sessions.places[session_BL])
    event_BL = _event(sessions, layout)
    from_end_BL = torch.where(layout.inside_BL, lengths_S[session_BL] - 1 - layout.positions_BL, 0)
    most_asked = None if shape is None else shape.num_asked
    layout = replace(layout, direction=direction, most_asked=most_asked)
    return replace(layout, event_BL=torch.where(there_BL, event_BL, -1), from_end_BL=from_end_BL)


def _event(sessions: Sessions, layout: Layout) -> Tensor:
    """The event that belongs at each place inside a session."""
    session_BL, past = layout.session_BL, sessions.past
    own_BL = sessions.starts[session_BL] + layout.positions_BL
    if past is None or not len(past.order):
        return own_BL
    past_BL = (past.starts[session_BL] + layout.positions_BL).clamp(max=len(past.order) - 1)
    before_BL = past.lengths[session_BL]
    is_past_BL = layout.positions_BL < before_BL
    return torch.where(is_past_BL, past.order[past_BL].long(), own_BL - before_BL)


def is_past(sessions: Sessions, layout: Layout) -> Tensor:
    """Whether a place holds an event of a past session, bool of shape [B, L]."""
    if sessions.past is None:
        return torch.zeros_like(layout.inside_BL)
    return layout.inside_BL & (layout.positions_BL < sessions.past.lengths[layout.session_BL])


def own_segments(sessions: Sessions, layout: Layout) -> Tensor:
    """`segments_BL` without past events: 0 there, as at padding."""
    return layout.segments_BL.masked_fill(is_past(sessions, layout), 0)


def _rows(lengths_S: Tensor, row_length: int) -> Layout:
    """Several sessions in each row: the longest first, each into the row with the most room left."""
    lengths = lengths_S.cpu().numpy()
    total, longest = int(lengths.sum()), int(lengths.max())
    num_rows = max(min(-(-total // max(row_length, longest)), len(lengths)), 1)
    filled = [(0, row) for row in range(num_rows)]  # a heap
    row_S, first_S = np.zeros((2, len(lengths)), np.int64)
    length_of = lengths.tolist()
    for session in (-lengths).argsort(kind="stable").tolist():
        first, row = filled[0]
        row_S[session], first_S[session] = row, first
        heapq.heapreplace(filled, (first + length_of[session], row))
    shape = (num_rows, max(filled)[0])

    session_E = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    position_E = np.arange(total) - np.repeat(lengths.cumsum() - lengths, lengths)
    first_S += row_S * shape[1]
    place_E = np.repeat(first_S, lengths) + position_E
    layout_2T = np.zeros((2, shape[0] * shape[1]), np.int64)
    layout_2T[0, place_E], layout_2T[1, place_E] = session_E, position_E
    segments_BL, positions_BL = torch.from_numpy(layout_2T).to(lengths_S.device).view(2, *shape)
    return Layout(segments_BL, positions_BL, end_S=torch.from_numpy(first_S).to(lengths_S.device) + lengths_S - 1)


def _one_each(lengths_S: Tensor, longest: int, most: int | None) -> Layout:
    """One session in each row, padded on the right."""
    row_S1 = torch.arange(len(lengths_S), device=lengths_S.device)[:, None]
    place_L = torch.arange(longest, device=lengths_S.device)
    inside_SL = place_L < lengths_S[:, None]
    return Layout(
        torch.where(inside_SL, row_S1 + 1, 0),
        torch.where(inside_SL, place_L, 0),
        end_S=row_S1[:, 0] * longest + lengths_S - 1,
        longest=longest,
        most=most,
    )


def _flat_row(lengths_S: Tensor, shape: Shape) -> Layout:
    """One session behind the other in a single row, and padding at its end, in whole blocks."""
    width = shape.width
    upto_S = lengths_S.cumsum(0)
    place_T = torch.arange(width, device=lengths_S.device)
    inside_T = place_T < upto_S[-1:]
    session_T = torch.searchsorted(upto_S, place_T, right=True).clamp(max=len(lengths_S) - 1)
    begin_S = upto_S - lengths_S
    return Layout(
        torch.where(inside_T, session_T + 1, 0)[None],
        torch.where(inside_T, place_T - begin_S[session_T], 0)[None],
        end_S=upto_S - 1,
        longest=shape.longest,
        most=width,
        block=shape.block,
    )


def make_batch(
    sessions: Sessions, layout: Layout, event_BL: Tensor, asked_BL: Tensor, capacity: int | None = None
) -> Batch:
    """The batch that reads `event_BL` and asks about the events `asked_BL`, [B, L] each; -1: nothing is read, or asked.

    What is read at a place need not be the event that belongs there. A label is asked only where its event is out of sight.
    `capacity` is the number of predictions N; None makes it that of the places asked about.
    """
    features, masked_BL = read(sessions, layout, event_BL)
    features |= asked_when(sessions, layout, masked_BL)
    asked_T = asked_BL.flatten()
    asked_N, is_asked_N = listed(asked_T >= 0, capacity)
    event_N, session_N = asked_T[asked_N].clamp(min=0), layout.session_BL.flatten()[asked_N]
    # Without an order of prediction, an event left where it is asked about tells its label: inference sees no such thing.
    unseen_N = is_asked_N if layout.order_BL is not None else is_asked_N & (event_BL.flatten()[asked_N] != event_N)
    labels = {name: values[event_N] for name, values in sessions.event_labels.items()}
    labels |= {name: values[session_N] for name, values in sessions.labels.items()}
    return Batch(
        layout,
        features,
        masked_BL,
        asked_N=asked_N,
        target_N=torch.where(is_asked_N, sessions.items[event_N].long(), 0),
        weight_N=is_asked_N / is_asked_N.sum().clamp(min=1),
        is_last_N=is_asked_N & (event_N == (sessions.starts + sessions.lengths - 1)[session_N]),
        labels={name: torch.where(unseen_N, value_N, torch.nan) for name, value_N in labels.items()},
    )


def make_query(sessions: Sessions, layout: Layout) -> Batch:
    """The batch that reads S sessions and asks what follows each, at its last place: N = S, in their order, nothing known."""
    features, masked_BL = read(sessions, layout, layout.event_BL)
    features |= asked_when(sessions, layout, masked_BL)
    asked_N = layout.end_S.clamp(min=0)
    return Batch(
        layout,
        features,
        masked_BL,
        asked_N=asked_N,
        target_N=torch.zeros_like(asked_N),
        weight_N=torch.full(asked_N.shape, 1 / max(len(asked_N), 1), device=asked_N.device),
        is_last_N=torch.zeros_like(asked_N, dtype=torch.bool),
        labels={},
    )


def read(sessions: Sessions, layout: Layout, event_BL: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The features of `event_BL` at each place and the context of its session, by name; and the places that are masked, [B, L]:
    those of a session at which no event (-1) is read. Where sessions have a past, IS_PAST says which places hold it.
    """
    there_BL, inside_BL, session_BL = event_BL >= 0, layout.inside_BL, layout.session_BL
    features = {name: _at(values, event_BL, there_BL) for name, values in sessions.events.items()}
    features |= {name: _at(values, session_BL, inside_BL) for name, values in sessions.context.items()}
    if sessions.past is not None:
        features[IS_PAST] = is_past(sessions, layout).to(torch.int32)
    return features, inside_BL & ~there_BL


def asked_when(sessions: Sessions, layout: Layout, masked_BL: Tensor) -> dict[str, Tensor]:
    """ASKED at each place of sessions with a `time`: where every event predicts the next one, by the time of that; else, where
    an event is hidden, by its own. Behind the last event it is what the sessions say of when they are asked.
    """
    if sessions.time is None:
        return {}
    session_BL, causal = layout.session_BL, layout.direction == "causal"
    number_BL = layout.positions_BL + int(causal)  # of the session's event whose time is said
    if sessions.past is not None:
        number_BL = number_BL - sessions.past.lengths[session_BL]
    event_BL = (sessions.starts[session_BL] + number_BL).clamp(0, len(sessions.items) - 1)
    seconds_BL = sessions.since(event_BL, sessions.time)
    if sessions.asked is not None:
        seconds_BL = torch.where(number_BL < sessions.lengths[session_BL], seconds_BL, sessions.asked[session_BL])
    said_BL = layout.inside_BL & (number_BL >= 0) & (causal | masked_BL)
    return {ASKED: torch.where(said_BL, 1 + seconds_BL, 0).float()}


def _at(values: Tensor, index_BL: Tensor, there_BL: Tensor) -> Tensor:
    value = values[index_BL.clamp(min=0)]
    return value.masked_fill_(~(there_BL if value.dim() == 2 else there_BL.unsqueeze(-1)), 0)


def listed(chosen_T: Tensor, capacity: int | None) -> tuple[Tensor, Tensor]:
    """The numbers of the places chosen, in order, and whether each is one: the first `capacity`, filled up with place 0."""
    if capacity is None:
        place_N = chosen_T.nonzero().squeeze(1)
        return place_N, torch.ones_like(place_N, dtype=torch.bool)
    rank_T = torch.where(chosen_T, chosen_T.cumsum(0) - 1, capacity).clamp(
        max=capacity
    )  # the last holds what is not listed
    place_T = torch.arange(len(chosen_T), device=chosen_T.device)
    place_N = torch.full((capacity + 1,), -1, device=chosen_T.device).scatter(0, rank_T, place_T)[:capacity]
    return place_N.clamp(min=0), place_N >= 0
