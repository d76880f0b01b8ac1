"""DistilBERT: a distilled version of BERT, smaller, faster, cheaper and lighter (Sanh et al., arXiv:1910.01108).

Its blocks alone: nothing is distilled here.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace


class DistilBERT(HuggingFace):
    """BERT's blocks without token types and pooler (arXiv:1910.01108)."""

    model_type: ClassVar[str] = "distilbert"
