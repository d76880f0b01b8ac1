"""GPT-2 (Radford et al. 2019) as transformers builds it, its attention routed through our packed one.

B rows, L places, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from modeling import attention
from modeling.config import ModelConfig


class GPT2(nn.Module):
    """Pre-norm causal blocks with a feed-forward of 4 D. Positions are added at the input, so its own table is not used."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rotary_size = config.dim // config.num_heads if config.positions == "rotary" else 0
        settings = GPT2Config(
            vocab_size=1,
            bos_token_id=None,
            eos_token_id=None,
            n_positions=1,
            n_embd=config.dim,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            resid_pdrop=config.dropout,
            embd_pdrop=0.0,  # the input layer has its own
            attn_pdrop=config.dropout,
            use_cache=False,
            attn_implementation=attention.NAME,
        )
        self.model = GPT2Model(settings)
        self.model.wte = None
        nn.init.zeros_(self.model.wpe.weight)
        self.model.wpe.weight.requires_grad_(False)

    def forward(self, x_BLD: Tensor, segments_BL: Tensor, positions_BL: Tensor) -> Tensor:
        """Hidden states h_BLD; each place sees its own session up to itself."""
        packing = attention.Packing.causal(segments_BL)
        if self.rotary_size:
            packing = packing.rotated(positions_BL, self.rotary_size)
        nowhere = torch.zeros_like(positions_BL)
        return self.model(inputs_embeds=x_BLD, position_ids=nowhere, use_cache=False, packing=packing).last_hidden_state
