"""Causal: every event predicts the one after it (SASRec, arXiv:1808.09781; GPT-2). Inference reads the last event's state."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from modeling.attention import Direction
from modeling.batches import Batch
from modeling.config import ModelConfig
from modeling.draws import uniform
from modeling.objectives import LayOut, Objective
from modeling.sessions import Sessions
from schemas.errors import InputError


class Causal(Objective):
    """Every event predicts the next one of its session; the last of past sessions predicts the first one."""

    direction: ClassVar[Direction] = "causal"
    drops: ClassVar[int] = 1
    says_when: ClassVar[bool] = True

    def __init__(
        self,
        *,
        last_only: Annotated[bool, Field(description="Predict only the last event of each session.")] = False,
        first: Annotated[
            Literal["next", "any"],
            Field(
                description="What the last past event predicts (inputs.past_events): the session's first event, or any of it, "
                "drawn anew each time, which suits lists that are made once a day."
            ),
        ] = "next",
    ) -> None:
        self.last_only, self.first = last_only, first

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """What a past predicts is chosen only where one is read."""
        super().check(config)
        first = config.objective.options.get("first", "next")
        if first != "next" and not config.inputs.past_events:
            raise InputError(
                f"objective.first {first} says what past events predict, and none are read (inputs.past_events 0): set "
                "inputs.past_events, or leave first out."
            )

    def batch(self, sessions: Sessions, lay_out: LayOut, generator: torch.Generator) -> Batch:
        """Hiding the last event makes training end where prediction begins."""
        layout = lay_out(sessions.drop_last(self.drops))
        wanted_BL = layout.is_end_BL if self.last_only else layout.inside_BL
        next_BL = layout.event_BL + 1
        if sessions.past is not None:
            before_BL = sessions.past.lengths[layout.session_BL]
            wanted_BL = wanted_BL & (layout.positions_BL >= before_BL - 1)
            is_first_BL = layout.positions_BL == before_BL - 1  # what comes next is the first of the session
            next_BL = torch.where(is_first_BL, self._first(sessions, generator)[layout.session_BL], next_BL)
        return self.make_batch(sessions, layout, layout.event_BL, torch.where(wanted_BL, next_BL, -1))

    def _first(self, sessions: Sessions, generator: torch.Generator) -> Tensor:
        """The event of each session that its past predicts, [S]."""
        if self.first == "next":
            return sessions.starts
        draw_S = uniform((len(sessions),), generator, torch.float64)
        return sessions.starts + (draw_S * sessions.lengths).long()

    def capacity(self, num_places: int, num_sessions: int) -> int:
        """Every place, or one a session."""
        return num_sessions if self.last_only else num_places
