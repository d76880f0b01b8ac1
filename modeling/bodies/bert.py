"""BERT: pre-training of deep bidirectional transformers (Devlin et al., arXiv:1810.04805).

The norm before the first block is kept; tables of positions and token types, dropout at the input and the pooler are
left out. What is predicted from what is the objective's business: `masked` is BERT's.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace


class BERT(HuggingFace):
    """Post-norm blocks, GELU, and a norm of the input (arXiv:1810.04805)."""

    model_type: ClassVar[str] = "bert"
