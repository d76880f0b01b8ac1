"""Causal: every event predicts the next one of its session (SASRec, GPT-2)."""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.data import Sessions


class Causal:
    """Inputs are all events but the last of each session; the target of an event is the one after it."""

    def inputs(self, sessions: Sessions) -> Sessions:
        """What the body reads: hiding the last event makes training end where prediction begins."""
        return sessions.drop_last(1)

    def targets(self, sessions: Sessions, event_BL: Tensor) -> Tensor:
        """Item ids to predict, shape [B, L]; 0 where there is nothing to predict. `event_BL` is -1 at padding."""
        following = sessions.items[(event_BL + 1).clamp(min=0)].long()
        return torch.where(event_BL >= 0, following, 0)
