"""LLaMA: open and efficient foundation language models (Touvron et al., arXiv:2302.13971).

It turns queries and keys itself, by our positions, and not at all unless positions are rotary. There are as many heads for
keys as for queries. The type has dropout of attention alone.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace


class Llama(HuggingFace):
    """Pre-norm blocks: RMSNorm, SwiGLU, no biases (arXiv:2302.13971)."""

    model_type: ClassVar[str] = "llama"
