"""Reformer: the efficient transformer (Kitaev et al., arXiv:2001.04451).

Layers alternate between plain attention and attention whose queries are its keys, in which a place sees itself only where
there is nothing else. Its hashing, which finds the keys worth looking at among many thousands, is not used: sessions are
short, and what is found would depend on chance and on padding. The two streams of a reversible network are kept, and joined
at the end, but gradients take the ordinary way: recomputing what short sessions need saves nothing, and transformers draws
a new seed for all the process to do so. It cannot share rows.

B rows, L places, D width.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention import Direction, Layout
from modeling.bodies._hugging_face import HuggingFace
from modeling.config import BodyConfig

WHOLE = 2**30  # places that attention does not cut into chunks


class Reformer(HuggingFace):
    """Pre-norm blocks of two streams, every second one with queries for keys (arXiv:2001.04451)."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "both"})
    packed: ClassVar[bool] = False
    rotary: ClassVar[bool] = False
    model_type: ClassVar[str] = "reformer"

    def __init__(self, config: BodyConfig, rotary: bool) -> None:
        super().__init__(
            config,
            rotary,
            attn_layers=list(islice(cycle(("local", "lsh")), config.num_layers)),
            attention_head_size=config.dim // config.num_heads,
            local_attn_chunk_length=WHOLE,
            lsh_attn_chunk_length=WHOLE,
            axial_pos_embds=False,
        )
        self.model = self.model.encoder
        self.join = nn.Linear(2 * config.dim, config.dim)

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        inside_BL = layout.segments_BL > 0
        attended_BLD, fed_BLD = x_BLD, x_BLD
        for layer in self.model.layers:
            layer.attention.self_attention.is_decoder = layout.direction == "causal"
            attended = layer.attention(fed_BLD, attention_mask=inside_BL)
            attended_BLD = attended_BLD + attended.hidden_states
            fed_BLD = fed_BLD + layer.feed_forward(attended_BLD)
        h_BLC = self.model.layer_norm(torch.cat([attended_BLD, fed_BLD], -1))
        h_BLD: Tensor = self.join(F.dropout(h_BLC, self.config.dropout, self.training))
        return h_BLD
