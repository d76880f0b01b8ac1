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
        nothing_BL = torch.zeros_like(inside_BL)
        h_BLD: Tensor = self.model.embeddings(
            inputs_embeds=F.pad(x_BLD, (0, 0, 0, missing)), position_ids=nothing_BL, token_type_ids=nothing_BL
        )
        outside_BL = inside_BL == 0
        mask_BL = h_BLD.new_zeros(outside_BL.shape).masked_fill(outside_BL, torch.finfo(h_BLD.dtype).min)
        # The layers one by one: the encoder asks the data whether an event sees everything, for which the host waits.
        for layer in self.model.encoder.layer:
            h_BLD = layer(h_BLD, attention_mask=mask_BL, is_index_masked=outside_BL, is_global_attn=False)[0]
        return h_BLD[:, :length]
