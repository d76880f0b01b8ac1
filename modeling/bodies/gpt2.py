"""GPT-2: language models are unsupervised multitask learners (Radford et al. 2019)."""

from __future__ import annotations

from typing import Any, ClassVar

from modeling.bodies._hugging_face import HuggingFace
from modeling.config import BodyConfig


class GPT2(HuggingFace):
    """Pre-norm blocks with a feed-forward of 4 D."""

    model_type: ClassVar[str] = "gpt2"

    def settings(self, config: BodyConfig) -> dict[str, Any]:
        drop = {"resid_pdrop": config.dropout, "attn_pdrop": config.dropout, "embd_pdrop": 0.0}
        return super().settings(config) | drop | {"n_positions": 1}
