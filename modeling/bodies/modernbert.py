"""ModernBERT: smarter, better, faster, longer (Warner et al., arXiv:2412.13663).

Every layer sees the whole session: its windows of 128 are open. It turns queries and keys itself, by our positions, and not
at all unless positions are rotary.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace


class ModernBERT(HuggingFace):
    """Pre-norm blocks with a gated feed-forward, no biases (arXiv:2412.13663)."""

    model_type: ClassVar[str] = "modernbert"
