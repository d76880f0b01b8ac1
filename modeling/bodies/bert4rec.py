"""BERT4Rec: sequential recommendation with bidirectional encoder representations (Sun et al., arXiv:1904.06690).

BERT's blocks between a norm of the input and the paper's output layer, GELU(h W + b), which its code follows by a norm. What
the paper adds to the logits, a bias per item, is the head's (`bias: true`); what it trains by is the objective `masked`.

B rows, L places, D width.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention import Direction, Layout
from modeling.bodies import Body
from modeling.bodies._post_norm import PostNorm
from modeling.config import BodyConfig

EPS = 1e-12


class BERT4Rec(Body):
    """Post-norm blocks, GELU, and one more layer before the output (arXiv:1904.06690)."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "both"})
    flat: ClassVar[bool] = True
    rotary: ClassVar[bool] = True

    def __init__(self, config: BodyConfig, rotary: bool) -> None:
        super().__init__(config, rotary)
        self.input_norm = nn.LayerNorm(config.dim, eps=EPS)
        self.blocks = nn.ModuleList(
            PostNorm(config, rotary, F.gelu, eps=EPS, attention_dropout=config.attention_dropout)
            for _ in range(config.num_layers)
        )
        self.out = nn.Linear(config.dim, config.dim)
        self.out_norm = nn.LayerNorm(config.dim, eps=EPS)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                nn.init.zeros_(module.bias)

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        x_BLD = self.input_norm(x_BLD)
        for block in self.blocks:
            x_BLD = block(x_BLD, layout)
        h_BLD: Tensor = self.out_norm(F.gelu(self.out(x_BLD)))
        return h_BLD
