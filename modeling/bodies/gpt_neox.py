"""GPT-NeoX-20B (Black et al., arXiv:2204.06745), the architecture of Pythia (arXiv:2304.01373).

It turns queries and keys itself, by our positions, and not at all unless positions are rotary. Whole heads are turned
instead of a quarter of each: ours are small.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace
from modeling.config import BodyConfig


class GPTNeoX(HuggingFace):
    """Pre-norm blocks whose attention and feed-forward stand side by side (arXiv:2204.06745)."""

    model_type: ClassVar[str] = "gpt_neox"

    def __init__(self, config: BodyConfig, rotary: bool) -> None:
        whole = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0}
        super().__init__(config, rotary, rope_parameters=whole)
