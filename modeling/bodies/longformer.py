"""Longformer: the long-document transformer (Beltagy et al., arXiv:2004.05150).

An event sees half a window before itself and half a window after. No event sees everything ("global"), so the weights for
that are left out. It cannot share rows, and the row is padded here to whole windows.

B rows, L places, D width.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from modeling.attention import Direction, Layout
from modeling.bodies._hugging_face import HuggingFace
from modeling.config import BodyConfig


class Longformer(HuggingFace):
    """Post-norm blocks whose attention reaches half a window to either side (arXiv:2004.05150)."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"both"})
    packed: ClassVar[bool] = False
    rotary: ClassVar[bool] = False
    model_type: ClassVar[str] = "longformer"

    def __init__(
        self,
        config: BodyConfig,
        rotary: bool,
        *,
        window: Annotated[
            int, Field(ge=2, multiple_of=2, description="Events seen around each; costs as much in short sessions.")
        ] = 64,
    ) -> None:
        super().__init__(config, rotary, attention_window=window)
        self.window = window
        for layer in self.model.encoder.layer:
            attention = layer.attention.self
            del attention.query_global, attention.key_global, attention.value_global

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        length = x_BLD.shape[1]
        missing = -length % self.window
        inside_BL = F.pad((layout.segments_BL > 0).long(), (0, missing))
        out = self.model(
            inputs_embeds=F.pad(x_BLD, (0, 0, 0, missing)),
            attention_mask=inside_BL,
            position_ids=torch.zeros_like(inside_BL),
        )
        h_BLD: Tensor = out.last_hidden_state[:, :length]
        return h_BLD
