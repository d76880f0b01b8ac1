"""Masked: some events are hidden and predicted from all others (BERT, arXiv:1810.04805; BERT4Rec, arXiv:1904.06690).

Of the events to predict, 80 % are hidden, 10 % are read as another event drawn from the whole batch and 10 % as they are,
so that a state does not lean on what is read at its own place. In a share of the sessions only the last event is predicted
and always hidden, as in inference, which reads an empty place behind the history.

B rows, L places, S sessions, N events.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from modeling.attention import Direction
from modeling.batches import Places
from modeling.objectives import LayOut, Objective, Task, some_but_not_all
from modeling.sessions import Sessions

HIDDEN, SWAPPED = 0.8, 0.1  # of the events to predict; the rest is read as it is


class Masked(Objective):
    """Some events are hidden and predicted from all others of their session (arXiv:1810.04805, arXiv:1904.06690)."""

    direction: ClassVar[Direction] = "both"
    asks: ClassVar[bool] = True

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

    def task(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Task:
        """In a session of n events, one is predicted with probability p + ((1 - p)^n - p^n) / n, where `last` is 0."""
        places = lay_out(sessions)
        asked_BL, certain_BL = choose(places, len(sessions), self.probability, self.last, generator)
        read_as_BL = torch.rand(asked_BL.shape, generator=generator, device=generator.device)
        _, event_N = sessions.event_index()
        draw_BL = torch.randint(len(event_N), asked_BL.shape, generator=generator, device=generator.device)
        hidden_BL = asked_BL & (certain_BL | (read_as_BL < HIDDEN))
        swapped_BL = asked_BL & ~hidden_BL & (read_as_BL < HIDDEN + SWAPPED)
        event_BL = torch.where(swapped_BL, event_N[draw_BL], places.event_BL)
        return Task(places, event_BL.masked_fill(hidden_BL, -1), places.event_BL.masked_fill(~asked_BL, -1))


def choose(
    places: Places, num_sessions: int, probability: float, last: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The places to predict, [B, L], and which of them are their session's last and only one by the share `last`."""
    draw_BL = torch.rand(places.event_BL.shape, generator=generator, device=generator.device, dtype=torch.float64)
    only_last_S = torch.rand(num_sessions, generator=generator, device=generator.device) < last
    only_last_BL = only_last_S[places.session_BL]
    chosen_BL = some_but_not_all(draw_BL < probability, places.segments_BL, draw_BL)
    return torch.where(only_last_BL, places.ends_BL, chosen_BL), only_last_BL & places.ends_BL
