"""SASRec: self-attentive sequential recommendation (Kang and McAuley, arXiv:1808.09781), with its own block.

The block differs from today's usual pre-norm transformer: the query and the residual are the *normalised* input while keys
and values are the raw one; the feed-forward is as wide as the model and its residual is its normalised input. On Amazon
Beauty this block learns several times faster per epoch than the usual one and ends higher.

B rows, L places, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention import Packing, attend
from modeling.config import ModelConfig


class SASRec(nn.Module):
    """Causal blocks of attention and a narrow feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim, eps=1e-8)
        self.rotary_size = config.dim // config.num_heads if config.positions == "rotary" else 0
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)

    def forward(self, x_BLD: Tensor, segments_BL: Tensor, positions_BL: Tensor) -> Tensor:
        """Hidden states h_BLD; each place sees its own session up to itself."""
        packing = Packing.causal(segments_BL)
        if self.rotary_size:
            packing = packing.rotated(positions_BL, self.rotary_size)
        for block in self.blocks:
            x_BLD = block(x_BLD, packing)
        return self.norm(x_BLD)


class Block(nn.Module):
    """Attention from the normalised input to the raw one, then a feed-forward of width D."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.attention_norm = nn.LayerNorm(config.dim, eps=1e-8)
        self.query = nn.Linear(config.dim, config.dim)
        self.key_value = nn.Linear(config.dim, 2 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.feed_norm = nn.LayerNorm(config.dim, eps=1e-8)
        self.wide = nn.Linear(config.dim, config.dim)
        self.narrow = nn.Linear(config.dim, config.dim)

    def forward(self, x_BLD: Tensor, packing: Packing) -> Tensor:
        """One block; shapes stay."""
        q_BLD = self.attention_norm(x_BLD)
        key_BLD, value_BLD = self.key_value(x_BLD).chunk(2, -1)
        q, k, v = (self._heads(t_BLD) for t_BLD in (self.query(q_BLD), key_BLD, value_BLD))
        attended = attend(q, k, v, packing, self.dropout if self.training else 0.0)
        x_BLD = q_BLD + self.out(attended.transpose(1, 2).flatten(2))
        f_BLD = self.feed_norm(x_BLD)
        hidden = self._drop(F.relu(self.wide(f_BLD)))
        return f_BLD + self._drop(self.narrow(hidden))

    def _heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
