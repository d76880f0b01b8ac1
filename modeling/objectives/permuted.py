"""Permuted: spans of events are predicted one event after the other, in a random order (XLNet, arXiv:1906.08237).

Spans as in Transformers4Rec: a session is cut into stretches of span / probability events, span being 1 to `max_span`, and
a span of that length lies at a random place of each; what reaches over the session's end is cut off. The order of
prediction is drawn event by event, so that a span does not stay together. An event to predict keeps its content, which
those predicted after it see; the state at its own place does not. Inference predicts an empty place behind the history.

B rows, L places, S sessions, C stretches of a session, Q events to predict.
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


class Permuted(Objective):
    """Spans of events are predicted from the rest and from each other, in a random order (arXiv:1906.08237)."""

    direction: ClassVar[Direction] = "permuted"
    asks: ClassVar[bool] = True

    def __init__(
        self,
        *,
        probability: Annotated[
            float,
            Field(
                gt=0, lt=1, description="Share of events predicted in long sessions; at least one is, and one is not."
            ),
        ] = 1 / 6,
        max_span: Annotated[int, Field(ge=1, description="Most neighbouring events in a span.")] = 5,
    ) -> None:
        self.probability, self.max_span = probability, max_span

    def task(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Task:
        """The batch's `order` numbers the events to predict of each session from 1; 0 elsewhere."""
        places = lay_out(sessions)
        in_span_BL = self._spans(places, len(sessions), generator)
        draw_BL = torch.rand(in_span_BL.shape, generator=generator, device=generator.device, dtype=torch.float64)
        asked_BL = some_but_not_all(in_span_BL, places.segments_BL, draw_BL)
        order_BL = _number(asked_BL, places.segments_BL, generator)
        return Task(places, places.event_BL, places.event_BL.masked_fill(~asked_BL, -1), {"order": order_BL})

    def query(self, histories: Sessions, lay_out: LayOut) -> Task:
        """The empty place behind each history is the one to predict."""
        task = super().query(histories, lay_out)
        return Task(task.places, task.event_BL, task.asked_BL, {"order": task.places.ends_BL.long()})

    def _spans(self, places: Places, num_sessions: int, generator: torch.Generator) -> Tensor:
        """Which places lie in a span, [B, L]."""
        longest = int(places.positions_BL.max()) + 1
        shape = (num_sessions, longest)  # no stretch is shorter than one event
        span_SC = torch.randint(1, self.max_span + 1, shape, generator=generator, device=generator.device)
        stretch_SC = (span_SC / self.probability).round().long()
        free_SC = stretch_SC - span_SC + 1
        begin_SC = (torch.rand(shape, generator=generator, device=generator.device) * free_SC).long()
        end_SC = stretch_SC.cumsum(1)
        begin_SC = begin_SC + end_SC - stretch_SC
        place_SL = torch.arange(longest, device=generator.device).expand(shape).contiguous()
        stretch_SL = torch.searchsorted(end_SC, place_SL, right=True)
        begin_SL, span_SL = begin_SC.gather(1, stretch_SL), span_SC.gather(1, stretch_SL)
        in_span_SL = (place_SL >= begin_SL) & (place_SL < begin_SL + span_SL)
        return in_span_SL[places.session_BL, places.positions_BL]


def _number(asked_BL: Tensor, segments_BL: Tensor, generator: torch.Generator) -> Tensor:
    """The places asked about, numbered from 1 within each session in a random order; 0 elsewhere."""
    session_Q = segments_BL[asked_BL]
    shuffled_Q = torch.rand(len(session_Q), generator=generator, device=generator.device).argsort()
    by_session_Q = shuffled_Q[session_Q[shuffled_Q].argsort(stable=True)]
    sorted_Q = session_Q[by_session_Q]
    first_Q = torch.searchsorted(sorted_Q, sorted_Q)
    order_Q = torch.empty_like(session_Q)
    order_Q[by_session_Q] = torch.arange(1, len(session_Q) + 1, device=order_Q.device) - first_Q
    return torch.zeros_like(segments_BL).masked_scatter_(asked_BL, order_Q)
