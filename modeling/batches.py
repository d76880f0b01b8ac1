"""Batches cut from sessions: laid out side by side in rows, or one in each.

S sessions, E events, B rows, L places in a row, N events of the sessions at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modeling.sessions import Sessions

ROW_LENGTH = 64
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Places:
    """Where the events of some sessions lie in B rows of L places.

    `event_BL` is the event at a place (-1: none), `session_BL` its session's number among those at hand, `segments_BL` that
    number from 1 (0: padding), `positions_BL` the place within the session from 0, `from_end_BL` counted from its end. With a
    place to ask at, each session ends in one that holds no event.
    """

    event_BL: Tensor
    session_BL: Tensor
    segments_BL: Tensor
    positions_BL: Tensor
    from_end_BL: Tensor

    @property
    def ends_BL(self) -> Tensor:
        """Whether a place is the last of its session."""
        return (self.from_end_BL == 0) & (self.segments_BL > 0)


def lay_out(sessions: Sessions, *, packed: bool, ask: bool = False, row_length: int = ROW_LENGTH) -> Places:
    """Lay sessions side by side in rows of about `row_length` places; not packed, each in a row of its own."""
    lengths = sessions.lengths + int(ask)
    row_S = _rows(lengths, row_length) if packed else torch.arange(len(lengths), device=lengths.device)
    by_row = row_S.argsort(stable=True)
    upto = lengths[by_row].cumsum(0)
    begins = upto - lengths[by_row]  # place of each session if all rows were one
    row_begins = torch.full((int(row_S.max()) + 1,), int(upto[-1]), device=lengths.device)
    row_begins.scatter_reduce_(0, row_S[by_row], begins, "amin")
    first_S = torch.empty_like(lengths)
    first_S[by_row] = begins - row_begins[row_S[by_row]]

    session_N = torch.repeat_interleave(lengths)
    position_N = torch.arange(len(session_N), device=lengths.device) - (lengths.cumsum(0) - lengths)[session_N]
    event_N = sessions.starts[session_N] + position_N
    if ask:
        event_N = torch.where(position_N < sessions.lengths[session_N], event_N, -1)
    row_N, place_N = row_S[session_N], first_S[session_N] + position_N
    shape = (len(row_begins), int(place_N.max()) + 1)

    def lay(values_N: Tensor, empty: int) -> Tensor:
        out = torch.full(shape, empty, dtype=torch.long, device=values_N.device)
        out[row_N, place_N] = values_N
        return out

    from_end_N = lengths[session_N] - 1 - position_N
    return Places(lay(event_N, -1), lay(session_N, 0), lay(session_N + 1, 0), lay(position_N, 0), lay(from_end_N, 0))


def _rows(lengths: Tensor, row_length: int) -> Tensor:
    """A row for each session: the longest begin a row each, the others fill what is left; one goes where its start falls."""
    total, order = int(lengths.sum()), lengths.argsort(descending=True, stable=True)
    num_rows = min(-(-total // max(row_length, int(lengths.max()))), len(lengths))
    first, others = order[:num_rows], order[num_rows:]
    room = (-(-total // num_rows) - lengths[first]).clamp(min=0)
    starts = lengths[others].cumsum(0) - lengths[others]
    row_S = torch.empty_like(lengths)
    row_S[first] = torch.arange(num_rows, device=lengths.device)
    row_S[others] = torch.searchsorted(room.cumsum(0), starts, right=True).clamp(max=num_rows - 1)
    return row_S


def read(sessions: Sessions, places: Places, event_BL: Tensor) -> Batch:
    """What a model reads: the features of `event_BL` at each place, the context of its session, and the layout.

    A place within a session that holds no event (-1) is `masked`: its features are 0 there. `event_BL` need not be the event
    that belongs there.
    """
    there_BL = event_BL >= 0
    batch = {name: _at(values, event_BL, there_BL) for name, values in sessions.events.items()}
    inside_BL = places.segments_BL > 0
    batch |= {name: _at(values, places.session_BL, inside_BL) for name, values in sessions.context.items()}
    return batch | {
        "segments": places.segments_BL,
        "positions": places.positions_BL,
        "from_end": places.from_end_BL,
        "masked": inside_BL & ~there_BL,
    }


def _at(values: Tensor, index_BL: Tensor, there_BL: Tensor) -> Tensor:
    found = values[index_BL.clamp(min=0)]
    return found.masked_fill_(~(there_BL if found.dim() == 2 else there_BL.unsqueeze(-1)), 0)
