"""Scores of a model for histories: every item of the catalogue, and the labels.

N histories, E width of item vectors, V items, T items of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from modeling.model import SequenceModel
from modeling.sessions import Sessions
from schemas.errors import DivergedError

ROUNDING = 2.0**-23  # of float32 numbers near one: the distance from one to the next
MOST_EVENTS = {
    "cpu": 2**14,
    "cuda": 2**19,
}  # read at a time: what the layers hold grows with events, not with histories


def states(model: SequenceModel, histories: Sessions) -> Iterator[Tensor]:
    """The states from which what follows each history is predicted, in parts of so many histories, [n, D] each."""
    if not len(histories):
        return
    longest = model.longest
    upto_N = histories.lengths.clamp(min=1, max=longest).cumsum(0)
    most = max(MOST_EVENTS.get(model.device.type, MOST_EVENTS["cuda"]), longest)
    _, counts = ((upto_N - 1) // most).unique_consecutive(return_counts=True)
    for part in torch.arange(len(histories), device=upto_N.device).split(counts.tolist()):
        yield model.states(histories.select(part))


@torch.no_grad()
def predict(model: SequenceModel, histories: Sessions) -> dict[str, Tensor]:
    """What each label head predicts of the event that comes after each history, or of its session; float32 of shape [N].

    A label learned where sessions end is predicted as if the next event were the last.

    Raises:
        DivergedError: when predictions are not finite.
    """
    model.eval()
    parts: dict[str, list[Tensor]] = {label: [torch.empty(0)] for label in model.label_heads}
    for h_ND in states(model, histories):
        for label, head in model.label_heads.items():
            parts[label].append(head.predict(h_ND).cpu())
    predicted = {label: torch.cat(values) for label, values in parts.items()}
    if not all(value_N.isfinite().all() for value_N in predicted.values()):
        raise DivergedError("predicted labels are not finite: the model has diverged (try a lower learning_rate)")
    return predicted


class ModelScorer:
    """A sequence model as ranking sees it: the state of each history against the item vectors, which are made once."""

    @torch.no_grad()
    def __init__(self, model: SequenceModel) -> None:
        self.model = model.eval()
        self.num_items = model.schema.num_items
        self.items_VE = model.next_item.catalogue(model.inputs.items).float()
        self.bias_V = model.next_item.bias_V
        self.rankable_V = model.next_item.popularity_V > 0
        self.chunk = 256 if self.items_VE.device.type == "cpu" else 8192
        self.length_V = self.items_VE.norm(dim=1)

    @torch.no_grad()
    def queries(self, histories: Sessions) -> Tensor:
        """What item vectors are multiplied with, from the most recent events of each history, [N, E]."""
        parts = [self.model.next_item.query(h_ND).float() for h_ND in states(self.model, histories)]
        return torch.cat(parts) if parts else self.items_VE[:0]

    def tile(self, queries: Tensor, first: int, last: int) -> Tensor:
        """query . item + bias."""
        scores_NT = queries @ self.items_VE[first:last].T
        return scores_NT if self.bias_V is None else scores_NT.add_(self.bias_V[first:last])

    def rounding(self, queries: Tensor, column_NK: Tensor) -> Tensor:
        """sqrt(E) 2^-23 |query| |item|, and 2^-23 |bias|.

        A sum of E products in float32 is off by about sqrt(E) roundings of 2^-24, each of a size that |query| |item| bounds;
        two such sums by twice that. Measured for E from 8 to 1,024 and vectors of all kinds: at most half of it (LOG.md).
        """
        rounding_NK = queries.norm(dim=1, keepdim=True) * self.length_V[column_NK] * queries.shape[1] ** 0.5
        if self.bias_V is not None:
            rounding_NK = rounding_NK + self.bias_V[column_NK].abs()
        return rounding_NK * ROUNDING
