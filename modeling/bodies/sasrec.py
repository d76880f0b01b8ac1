"""SASRec: self-attentive sequential recommendation (Kang and McAuley, arXiv:1808.09781), with its own block.

The block differs from today's usual pre-norm transformer: the query and the residual are the *normalised* input while keys
and values are the raw one; the feed-forward is as wide as the model and its residual is its normalised input. On Amazon
Beauty this block learns several times faster per epoch than the usual one and ends higher.

B rows, L places, D width.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention import Direction, Layout, attend
from modeling.bodies import Body
from modeling.config import BodyConfig
from modeling.draws import dropout


class SASRec(Body):
    """Blocks of attention and a narrow feed-forward (arXiv:1808.09781)."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "both"})
    flat: ClassVar[bool] = True
    rotary: ClassVar[bool] = True

    def __init__(self, config: BodyConfig, rotary: bool) -> None:
        super().__init__(config, rotary)
        self.blocks = nn.ModuleList(Block(config, rotary) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim, eps=1e-8)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        for block in self.blocks:
            x_BLD = block(x_BLD, layout)
        return self.norm(x_BLD)


class Block(nn.Module):
    """Attention from the normalised input to the raw one, then a feed-forward of width D."""

    def __init__(self, config: BodyConfig, rotary: bool) -> None:
        super().__init__()
        self.num_heads, self.rotary = config.num_heads, rotary
        self.dropout, self.attention_dropout = config.dropout, config.attention_dropout
        self.attention_norm = nn.LayerNorm(config.dim, eps=1e-8)
        self.query = nn.Linear(config.dim, config.dim)
        self.key_value = nn.Linear(config.dim, 2 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.feed_norm = nn.LayerNorm(config.dim, eps=1e-8)
        self.wide = nn.Linear(config.dim, config.dim)
        self.narrow = nn.Linear(config.dim, config.dim)

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        """One block; shapes stay."""
        q_BLD = self.attention_norm(x_BLD)
        key_BLD, value_BLD = self.key_value(x_BLD).chunk(2, -1)
        q, k, v = (self._heads(t_BLD) for t_BLD in (self.query(q_BLD), key_BLD, value_BLD))
        attended = attend(q, k, v, layout, rotary=self.rotary, dropout=self.attention_dropout if self.training else 0.0)
        x_BLD = q_BLD + self.out(attended.transpose(1, 2).flatten(2))
        f_BLD = self.feed_norm(x_BLD)
        hidden = self._drop(F.relu(self.wide(f_BLD)))
        return f_BLD + self._drop(self.narrow(hidden))

    def _heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)
