"""RoBERTa: a robustly optimized BERT pretraining approach (Liu et al., arXiv:1907.11692).

The blocks are BERT's; what sets RoBERTa apart is its training. Its positions, counted from a padding index, are left out
with their table.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace


class RoBERTa(HuggingFace):
    """BERT's blocks (arXiv:1907.11692)."""

    model_type: ClassVar[str] = "roberta"
