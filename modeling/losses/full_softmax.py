"""Full softmax: cross-entropy over the whole catalogue, in chunks so that the logits are never held at once.

N predictions, D width, V items.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from modeling.losses._chunked import chunked_cross_entropy


def full_softmax(
    h_ND: Tensor,
    items_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    weight_N: Tensor,
    *,
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="Share of the target spread over all items.")
    ] = 0.0,
) -> Tensor:
    """-log softmax(h . items + bias)[target], weighed and summed over N predictions (arXiv:2309.07602).

    With label smoothing e the target is 1 - e on the right item and e / V on all: the loss grows by e (s[target] - mean(s)).
    """
    return chunked_cross_entropy(h_ND, items_VD, bias_V, target_N, weight_N, label_smoothing)
