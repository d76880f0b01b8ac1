"""ELECTRA: pre-training text encoders as discriminators (Clark et al., arXiv:2003.10555).

The blocks are BERT's; finding what was replaced is the objective `replaced_token`. Item vectors are as wide as the model, so
there is no projection between the two.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace


class ELECTRA(HuggingFace):
    """BERT's blocks (arXiv:2003.10555)."""

    model_type: ClassVar[str] = "electra"
