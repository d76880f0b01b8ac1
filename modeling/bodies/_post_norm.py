"""The first transformer's block, with a norm after each residual (Vaswani et al., arXiv:1706.03762).

B rows, L places, D width.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from modeling.attention import Layout
from modeling.bodies._self_attention import SelfAttention
from modeling.config import BodyConfig


class PostNorm(nn.Module):
    """s = LN(x + drop(attention(x))), h = LN(s + drop(W2 activation(W1 s + b1) + b2)), with 4 D hidden units."""

    def __init__(
        self,
        config: BodyConfig,
        rotary: bool,
        activation: Callable[[Tensor], Tensor],
        *,
        eps: float = 1e-5,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.attention = SelfAttention(config, rotary, attention_dropout)
        self.attention_norm = nn.LayerNorm(config.dim, eps=eps)
        self.wide = nn.Linear(config.dim, 4 * config.dim)
        self.narrow = nn.Linear(4 * config.dim, config.dim)
        self.feed_norm = nn.LayerNorm(config.dim, eps=eps)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        """One block; shapes stay."""
        s_BLD = self.attention_norm(x_BLD + self.drop(self.attention(x_BLD, layout)))
        hidden = self.activation(self.wide(s_BLD))
        h_BLD: Tensor = self.feed_norm(s_BLD + self.drop(self.narrow(hidden)))
        return h_BLD
