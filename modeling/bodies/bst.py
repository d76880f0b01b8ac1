"""BST: behavior sequence transformer for e-commerce recommendation in Alibaba (Chen et al., arXiv:1905.06874).

Only its transformer is here. The paper scores one candidate at a time, with the candidate as the last place of the sequence;
its positions are the times that lie between places and the candidate, which ours does not have: positions are those of
the inputs. Its one block did better than two or three: `num_layers: 1` is the paper's. It does not say the width of the
feed-forward, 4 D here, nor the slope of LeakyReLU, 0.01 here.

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


class BST(Body):
    """Post-norm blocks, LeakyReLU (arXiv:1905.06874)."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "both"})
    flat: ClassVar[bool] = True
    rotary: ClassVar[bool] = True

    def __init__(self, config: BodyConfig, rotary: bool) -> None:
        super().__init__(config, rotary)
        self.blocks = nn.ModuleList(PostNorm(config, rotary, F.leaky_relu) for _ in range(config.num_layers))

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        for block in self.blocks:
            x_BLD = block(x_BLD, layout)
        return x_BLD
