"""Permuted: spans of events are predicted one event after the other, in a random order (XLNet, arXiv:1906.08237).

Spans as in Transformers4Rec: a session is cut into stretches of span / probability events, span being 1 to `max_span`, and
a span of that length lies at a random place of each; what reaches over the session's end is cut off. The order of
prediction is drawn event by event, so that a span does not stay together. An event to predict keeps its content, which
those predicted after it see; the state at its own place does not. Inference predicts an empty place behind the history.

B rows, L places, S sessions, C stretches of a session, T = B * L.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from modeling.attention import Direction, Layout
from modeling.batches import Batch, own_segments
from modeling.objectives import LayOut, Objective, room_for, some_but_not_all
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

    def batch(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Batch:
        """The layout's order numbers the events to predict of each session from 1; 0 elsewhere."""
        layout = lay_out(sessions)
        in_span_BL = self._spans(layout, len(sessions), generator)
        draw_BL = torch.rand(in_span_BL.shape, generator=generator, device=generator.device, dtype=torch.float64)
        asked_BL = some_but_not_all(in_span_BL, own_segments(sessions, layout), draw_BL, len(sessions))
        layout = replace(layout, order_BL=_number(asked_BL, layout.segments_BL, generator))
        return self.make_batch(sessions, layout, layout.event_BL, layout.event_BL.masked_fill(~asked_BL, -1))

    def query(self, histories: Sessions, lay_out: LayOut) -> Batch:
        """The empty place behind each history is the one to predict."""
        batch = super().query(histories, lay_out)
        return replace(batch, layout=replace(batch.layout, order_BL=batch.layout.is_end_BL.long()))

    def capacity(self, num_places: int, num_sessions: int) -> int:
        """The largest share that spans of one length take, an eighth of a span more a session that ends in a stretch."""
        share = max(span / max(round(span / self.probability), 1) for span in range(1, self.max_span + 1))
        extra = self.max_span * num_sessions // 8
        return extra + room_for(share, num_places, num_sessions, spread=self.max_span)

    def _spans(self, layout: Layout, num_sessions: int, generator: torch.Generator) -> Tensor:
        """Which places lie in a span, [B, L]."""
        longest = layout.longest or int(layout.positions_BL.max()) + 1
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
        return in_span_SL[layout.session_BL, layout.positions_BL]


def _number(asked_BL: Tensor, segments_BL: Tensor, generator: torch.Generator) -> Tensor:
    """The places asked about, numbered from 1 within each session in a random order; 0 elsewhere."""
    group_T = (2 * segments_BL + ~asked_BL).flatten()  # of each session, the places asked about come first
    shuffled_T = torch.rand(len(group_T), generator=generator, device=generator.device).argsort()
    by_group_T = shuffled_T[group_T[shuffled_T].argsort(stable=True)]
    sorted_T = group_T[by_group_T]
    number_T = torch.arange(1, len(group_T) + 1, device=group_T.device) - torch.searchsorted(sorted_T, sorted_T)
    order_T = torch.zeros_like(group_T).scatter(0, by_group_T, number_T)
    return order_T.view(asked_BL.shape) * asked_BL
