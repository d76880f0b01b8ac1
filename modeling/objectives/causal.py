"""Causal: every event predicts the one after it (SASRec, arXiv:1808.09781; GPT-2). Inference reads the last event's state."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from modeling.attention import Direction
from modeling.objectives import LayOut, Objective, Task
from modeling.sessions import Sessions


class Causal(Objective):
    """Every event predicts the next one of its session."""

    direction: ClassVar[Direction] = "causal"

    def __init__(
        self,
        *,
        last_only: Annotated[bool, Field(description="Predict only the last event of each session.")] = False,
    ) -> None:
        self.last_only = last_only

    def task(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Task:
        """Hiding the last event makes training end where prediction begins."""
        places = lay_out(sessions.drop_last(1))
        wanted_BL = places.ends_BL if self.last_only else places.segments_BL > 0
        return Task(places, places.event_BL, torch.where(wanted_BL, places.event_BL + 1, -1))
