"""Scores of a model for histories: every item of the catalogue, and the labels.

N histories, E width of item vectors, V items, T items of a tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.model import SequenceModel
from modeling.sessions import Sessions

CHUNK = 512  # histories whose labels are predicted at a time


@torch.no_grad()
def predict(model: SequenceModel, histories: Sessions) -> dict[str, Tensor]:
    """What each label head foretells of the event that comes after each history, or of its session; float32 of shape [N].

    A label learned where sessions end is foretold as if the next event were the last.

    Raises:
        FloatingPointError: when predictions are not finite.
    """
    model.eval()
    found: dict[str, list[Tensor]] = {label: [torch.empty(0)] for label in model.label_heads}
    for start in range(0, len(histories), CHUNK):
        index = torch.arange(start, min(start + CHUNK, len(histories)))
        h_ND = model.states(histories.select(index))
        for label, head in model.label_heads.items():
            found[label].append(head.predict(h_ND).cpu())
    predicted = {label: torch.cat(parts) for label, parts in found.items()}
    if not all(value_N.isfinite().all() for value_N in predicted.values()):
        raise FloatingPointError("predicted labels are not finite: the model has diverged (try a lower learning_rate)")
    return predicted


class ModelScorer:
    """A sequence model as ranking sees it: the state of each history against the item vectors, which are made once."""

    @torch.no_grad()
    def __init__(self, model: SequenceModel) -> None:
        self.model = model.eval()
        self.num_items = model.schema.num_items
        self.items_VE = model.next_item.catalogue(model.inputs.items).float()
        self.bias_V = model.next_item.bias_V
        self.chunk = 256 if self.items_VE.device.type == "cpu" else 8192

    def queries(self, histories: Sessions) -> Tensor:
        """What item vectors are multiplied with, from the most recent events of each history, [N, E]."""
        return self.model.next_item.query(self.model.states(histories)).float()

    def tile(self, queries: Tensor, first: int, last: int) -> Tensor:
        """query . item + bias."""
        scores_NT = queries @ self.items_VE[first:last].T
        return scores_NT if self.bias_V is None else scores_NT + self.bias_V[first:last]

    def of_targets(self, queries: Tensor, target_N: Tensor) -> Tensor:
        """query . item + bias of one item per history."""
        score_N = (queries * self.items_VE[target_N]).sum(1)
        return score_N if self.bias_V is None else score_N + self.bias_V[target_N]
