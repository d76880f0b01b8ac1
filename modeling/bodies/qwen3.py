"""Qwen3 (Yang et al., arXiv:2505.09388).

Heads share the width, as in other bodies, instead of being 128 wide. Rotary positions and dropout are as in `llama`.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace


class Qwen3(HuggingFace):
    """Llama's blocks, with a norm of queries and keys (arXiv:2505.09388)."""

    model_type: ClassVar[str] = "qwen3"
