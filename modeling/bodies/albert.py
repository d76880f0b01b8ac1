"""ALBERT: a lite BERT for self-supervised learning (Lan et al., arXiv:1909.11942).

Item vectors are as wide as the model here (`inputs.item_dim` makes them narrower), so that the projection between the two
is square.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace


class ALBERT(HuggingFace):
    """One block, BERT's, gone through once for each layer (arXiv:1909.11942)."""

    model_type: ClassVar[str] = "albert"
