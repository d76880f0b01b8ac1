"""LiGR: the gated transformer layers of eSASRec (arXiv:2508.06450), from LinkedIn's ranking models (arXiv:2502.03417).

What a sublayer adds is multiplied by a gate that its raw input opens:

    s = x + sigmoid(x G1 + g1) * drop(attention(LN(x)))
    h = s + sigmoid(s G2 + g2) * drop(drop(SiLU(LN(s) W1) * LN(s) W2) W3)

W1, W2 and W3 have no biases (SwiGLU, arXiv:2002.05202). As in eSASRec's code, nothing is normalised after the last block.

B rows, L places, D width.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modeling.attention import Direction, Layout
from modeling.bodies import Body
from modeling.bodies._self_attention import SelfAttention
from modeling.config import BodyConfig


class LiGR(Body):
    """eSASRec's layers: pre-norm, SwiGLU, a gate on each residual (arXiv:2508.06450)."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "both"})
    flat: ClassVar[bool] = True
    rotary: ClassVar[bool] = True

    def __init__(
        self,
        config: BodyConfig,
        rotary: bool,
        *,
        ff_multiple: Annotated[int, Field(ge=1, le=16, description="Width of the feed-forward in widths.")] = 4,
    ) -> None:
        super().__init__(config, rotary)
        self.blocks = nn.ModuleList(Block(config, rotary, ff_multiple) for _ in range(config.num_layers))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        for block in self.blocks:
            x_BLD = block(x_BLD, layout)
        return x_BLD


class Block(nn.Module):
    """Attention and SwiGLU, each behind a gate."""

    def __init__(self, config: BodyConfig, rotary: bool, ff_multiple: int) -> None:
        super().__init__()
        dim = config.dim
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(config, rotary, config.attention_dropout)
        self.attention_gate = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.wide = nn.Linear(dim, 2 * ff_multiple * dim, bias=False)
        self.narrow = nn.Linear(ff_multiple * dim, dim, bias=False)
        self.feed_gate = nn.Linear(dim, dim)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        """One block; shapes stay."""
        attended = self.drop(self.attention(self.attention_norm(x_BLD), layout))
        x_BLD = x_BLD + self.attention_gate(x_BLD).sigmoid() * attended
        open_, hidden = self.wide(self.feed_norm(x_BLD)).chunk(2, -1)
        fed = self.drop(self.narrow(self.drop(F.silu(open_) * hidden)))
        return x_BLD + self.feed_gate(x_BLD).sigmoid() * fed
