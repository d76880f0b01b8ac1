"""Mamba-2: transformers are state space models (Dao and Gu, arXiv:2405.21060).

Each event moves a state of fixed size, so that time grows with the length of a session, and order is seen without any
positions. The state knows no bounds of sessions, so they do not share rows. The type has no dropout. Without the kernels of
`mamba_ssm` it is slow.

B rows, L places, D width.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from modeling.attention import Direction, Layout
from modeling.bodies._hugging_face import HuggingFace
from modeling.config import BodyConfig

EXPAND = 2


class Mamba2(HuggingFace):
    """Pre-norm blocks of a short convolution and a state that each event moves (arXiv:2405.21060)."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal"})
    packed: ClassVar[bool] = False
    rotary: ClassVar[bool] = False
    ordered: ClassVar[bool] = True
    model_type: ClassVar[str] = "mamba2"

    def __init__(
        self,
        config: BodyConfig,
        rotary: bool,
        *,
        state_size: Annotated[int, Field(ge=1, description="Numbers that each channel remembers.")] = 32,
    ) -> None:
        super().__init__(
            config,
            rotary,
            num_heads=config.num_heads,
            head_dim=EXPAND * config.dim // config.num_heads,
            expand=EXPAND,
            n_groups=1,
            state_size=state_size,
        )

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        """Padding lies behind all events, where no state sees it: without a mask, nobody asks the device for it."""
        h_BLD: Tensor = self.model(inputs_embeds=x_BLD).last_hidden_state
        return h_BLD
