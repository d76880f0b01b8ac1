"""Mistral 7B (Jiang et al., arXiv:2310.06825).

Its sliding window is open: every event sees the whole session. Rotary positions, heads and dropout are as in `llama`.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace


class Mistral(HuggingFace):
    """Llama's blocks (arXiv:2310.06825)."""

    model_type: ClassVar[str] = "mistral"
