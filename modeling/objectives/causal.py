"""Causal: every event predicts the one after it (SASRec, arXiv:1808.09781; GPT-2). Inference reads the last event's state."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from modeling.attention import Direction
from modeling.batches import Batch
from modeling.objectives import LayOut, Objective
from modeling.sessions import Sessions


class Causal(Objective):
    """Every event predicts the next one of its session; the last of past sessions predicts the first one."""

    direction: ClassVar[Direction] = "causal"
    drops: ClassVar[int] = 1
    says_when: ClassVar[bool] = True

    def __init__(
        self,
        *,
        last_only: Annotated[bool, Field(description="Predict only the last event of each session.")] = False,
    ) -> None:
        self.last_only = last_only

    def batch(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Batch:
        """Hiding the last event makes training end where prediction begins."""
        layout = lay_out(sessions.drop_last(self.drops))
        wanted_BL = layout.is_end_BL if self.last_only else layout.inside_BL
        next_BL = layout.event_BL + 1
        if sessions.past is not None:
            before_BL = sessions.past.lengths[layout.session_BL]
            wanted_BL = wanted_BL & (layout.positions_BL >= before_BL - 1)
            is_first_BL = layout.positions_BL == before_BL - 1  # what comes next is the first of the session
            next_BL = torch.where(is_first_BL, sessions.starts[layout.session_BL], next_BL)
        return self.make_batch(sessions, layout, layout.event_BL, torch.where(wanted_BL, next_BL, -1))

    def capacity(self, num_places: int, num_sessions: int) -> int:
        """Every place, or one a session."""
        return num_sessions if self.last_only else num_places
