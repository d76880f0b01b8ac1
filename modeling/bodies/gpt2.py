"""GPT-2: language models are unsupervised multitask learners (Radford et al. 2019).

Its table of positions is left out: those of the input take its place. Rotary ones are turned by our attention.
"""

from __future__ import annotations

from typing import ClassVar

from modeling.bodies._hugging_face import HuggingFace


class GPT2(HuggingFace):
    """Pre-norm blocks, GELU, a norm at the end (Radford et al. 2019)."""

    model_type: ClassVar[str] = "gpt2"
