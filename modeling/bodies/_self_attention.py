"""Multi-head self-attention (Vaswani et al., arXiv:1706.03762), where queries, keys and values come from the same input.

B rows, L places, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from modeling.attention import Layout, attend
from modeling.config import BodyConfig


class SelfAttention(nn.Module):
    """Attention from each place of x_BLD to those its layout shows, in heads, and a linear map of the result."""

    def __init__(self, config: BodyConfig, rotary: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.rotary, self.dropout = config.num_heads, rotary, dropout
        self.query_key_value = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        """[B, L, D] to the same; `dropout` is that of attention weights."""
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.query_key_value(x_BLD).chunk(3, -1)
        )
        attended = attend(q, k, v, layout, rotary=self.rotary, dropout=self.dropout if self.training else 0.0)
        h_BLD: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return h_BLD
