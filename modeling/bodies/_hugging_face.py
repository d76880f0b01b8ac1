"""A body that transformers builds, its attention routed through ours. Positions are added at the input or by rotation.

B rows, L places, D width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from modeling import attention
from modeling.attention import Direction, Layout
from modeling.bodies import Body
from modeling.config import BodyConfig


class HuggingFace(Body):
    """A model type of transformers, by its usual settings and those of a subclass."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "both"})
    rotary: ClassVar[bool] = True
    model_type: ClassVar[str]

    def __init__(self, config: BodyConfig, rotary: bool) -> None:
        super().__init__(config, rotary)
        settings = AutoConfig.for_model(self.model_type, **self.settings(config))
        self.model = AutoModel.from_config(settings, attn_implementation=attention.NAME)
        self.model.set_input_embeddings(None)
        for name, module in self.model.named_modules():
            if (isinstance(module, nn.Embedding) and "position" in name) or name.endswith("wpe"):
                nn.init.zeros_(module.weight)
                module.weight.requires_grad_(False)

    def settings(self, config: BodyConfig) -> dict[str, Any]:
        """Arguments of the model type's configuration."""
        return {
            "vocab_size": 1,
            "bos_token_id": None,
            "eos_token_id": None,
            "hidden_size": config.dim,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "use_cache": False,
        }

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        nowhere = torch.zeros_like(layout.positions_BL)
        out = self.model(inputs_embeds=x_BLD, position_ids=nowhere, use_cache=False, layout=layout, rotary=self.rotates)
        h_BLD: Tensor = out.last_hidden_state
        return h_BLD
