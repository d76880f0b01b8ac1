"""XLNet: generalized autoregressive pretraining (Yang et al., arXiv:1906.08237), with Transformer-XL's relative positions.

transformers builds it; `perm_mask` says in every direction who sees whom, so that sessions share rows: distances in a row
are distances in the session. In the direction `permuted` there are two streams: the content of a place sees itself and all
that is predicted before it; its query does not see the place's own content, and is what is returned. Segment embeddings and
the table of words are left out, and dropout at the input, which has its own.

B rows, L places, D width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import XLNetConfig, XLNetModel

from modeling.attention import Direction, Layout
from modeling.bodies import Body
from modeling.config import BodyConfig


class XLNet(Body):
    """Post-norm blocks with relative positions and, for permuted, a second stream of queries (arXiv:1906.08237)."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "both", "permuted"})
    ordered: ClassVar[bool] = True

    def __init__(self, config: BodyConfig, rotary: bool) -> None:
        super().__init__(config, rotary)
        settings = XLNetConfig(
            vocab_size=1,
            d_model=config.dim,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            d_inner=4 * config.dim,
            dropout=config.dropout,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
        self.model = XLNetModel(settings)
        self.model.set_input_embeddings(None)
        self.model.dropout = nn.Identity()
        self.model.mask_emb.requires_grad_(False)
        for layer in self.model.layer:
            del layer.rel_attn.seg_embed, layer.rel_attn.r_s_bias

    def keep_to(self, direction: Direction) -> None:
        """Queries begin at a learned vector, which other directions have no use for."""
        self.model.mask_emb.requires_grad_(direction == "permuted")

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        hides_BLL = ~_sees(layout)
        queries_BLL = None
        if layout.direction == "permuted":
            queries_BLL = torch.eye(x_BLD.shape[1], device=x_BLD.device).expand(hides_BLL.shape)
        out = self.model(inputs_embeds=x_BLD, perm_mask=hides_BLL.float(), target_mapping=queries_BLL, use_mems=False)
        h_BLD: Tensor = out.last_hidden_state
        return h_BLD


def _sees(layout: Layout) -> Tensor:
    """Whether place i sees the content of place j, [B, L, L]; content sees itself anyway."""
    if layout.direction != "permuted":
        return layout.mask_B1LL[:, 0]
    order_BL = layout.order_BL
    assert order_BL is not None
    return layout.same_BLL & ((order_BL[:, None, :] == 0) | (order_BL[:, None, :] < order_BL[:, :, None]))
