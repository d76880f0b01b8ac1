"""Masked: some events are hidden and predicted from all others (BERT, arXiv:1810.04805; BERT4Rec, arXiv:1904.06690).

Of the events to predict, 80 % are hidden, 10 % are read as another event drawn from the whole batch and 10 % as they are,
so that a state does not lean on what is read at its own place. In a share of the sessions only the last event is predicted
and always hidden, as in inference, which reads an empty place behind the history.

B rows, L places, S sessions.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from modeling.attention import Direction, Layout
from modeling.batches import Batch, own_segments
from modeling.draws import uniform
from modeling.objectives import LayOut, Objective, room_for, some_but_not_all
from modeling.sessions import Sessions

HIDDEN, SWAPPED = 0.8, 0.1  # of the events to predict; the rest is read as it is


class Masked(Objective):
    """Some events are hidden and predicted from all others of their session (arXiv:1810.04805, arXiv:1904.06690)."""

    direction: ClassVar[Direction] = "both"
    asks: ClassVar[bool] = True
    says_when: ClassVar[bool] = True

    def __init__(
        self,
        *,
        probability: Annotated[
            float, Field(gt=0, lt=1, description="That an event is predicted; at least one is, and one is not.")
        ] = 0.15,
        last: Annotated[
            float, Field(ge=0, le=1, description="Share of sessions in which only the last event is predicted.")
        ] = 0.1,
    ) -> None:
        self.probability, self.last = probability, last

    def batch(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Batch:
        """In a session of n events, one is predicted with probability p + ((1 - p)^n - p^n) / n, where `last` is 0."""
        layout = lay_out(sessions)
        asked_BL, certain_BL = choose(layout, sessions, self.probability, self.last, generator)
        read_as_BL = uniform(asked_BL.shape, generator)
        other_BL = any_event(sessions, asked_BL.shape, generator)
        hidden_BL = asked_BL & (certain_BL | (read_as_BL < HIDDEN))
        swapped_BL = asked_BL & ~hidden_BL & (read_as_BL < HIDDEN + SWAPPED)
        event_BL = torch.where(swapped_BL, other_BL, layout.event_BL).masked_fill(hidden_BL, -1)
        return self.make_batch(sessions, layout, event_BL, layout.event_BL.masked_fill(~asked_BL, -1))

    def capacity(self, num_places: int, num_sessions: int) -> int:
        """The share of events that is predicted, and one more a session."""
        return room_for(self.probability, num_places, num_sessions)


def choose(
    layout: Layout, sessions: Sessions, probability: float, last: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The places to predict, [B, L], and which of them are their session's last and only one by the share `last`.

    Past events are never predicted.
    """
    draw_BL = uniform(layout.segments_BL.shape, generator, torch.float64)
    only_last_S = uniform((len(sessions),), generator) < last
    only_last_BL = only_last_S[layout.session_BL]
    own_BL = own_segments(sessions, layout)
    chosen_BL = some_but_not_all(draw_BL < probability, own_BL, draw_BL, len(sessions))
    return torch.where(only_last_BL, layout.is_end_BL, chosen_BL), only_last_BL & layout.is_end_BL


def any_event(sessions: Sessions, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Events drawn uniformly from all sessions."""
    upto_S = sessions.lengths.cumsum(0)
    dart = uniform(shape, generator, torch.float64)
    number = (dart * upto_S[-1:]).long()
    session = torch.searchsorted(upto_S, number, right=True)
    return (sessions.starts + sessions.lengths - upto_S)[session] + number
