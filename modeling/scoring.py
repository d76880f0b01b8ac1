"""Scores of a model for histories: every item of the catalogue, and the labels.

N histories, E width of item vectors, V items, T items of a tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from modeling.evaluation.scorer import BLOCK, DIVERGED
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from schemas.errors import DivergedError

ROUNDING = 2.0**-23  # of float32 numbers near one: the distance from one to the next
LEAST_WIDTH = 8  # below, a score is 2^21 of its roundings and more, which float32 does not hold to a quarter
MOST_EVENTS = {
    "cpu": 2**14,
    "cuda": 2**19,
}  # read at a time: what the layers hold grows with events, not with histories
# Of a chunk on a GPU, where the host waits at the end of each: histories, and items times histories, each a bit (512 MB).
MOST_HISTORIES, MOST_HIDDEN = 2**15, 2**32


def states(model: SequenceModel, histories: Sessions) -> Iterator[Tensor]:
    """The states from which what follows each history is predicted, in parts of so many histories, [n, D] each."""
    if not len(histories):
        return
    longest = model.longest_with_past
    upto_N = histories.places.clamp(min=1, max=longest).cumsum(0)
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


class VectorScorer(ABC):
    """Scores that are products of queries and item vectors, with a bias or without.

    On a CPU the vectors are kept a second time as the products want them: `blocks`, [V / 1024, E + 1, 1024], each a tile of
    items side by side, with a row of ones below. That saves a product of few histories a fifth of its time.
    """

    @torch.no_grad()
    def __init__(self, items_VE: Tensor, bias_V: Tensor | None, rankable_V: Tensor) -> None:
        self.num_items = len(items_VE)
        self.items_VE, self.bias_V, self.rankable_V = items_VE, bias_V, rankable_V
        on_cpu = self.items_VE.device.type == "cpu"
        self.chunk = 1024 if on_cpu else max(1024, min(MOST_HISTORIES, MOST_HIDDEN // max(self.num_items, 1)))
        self.length_V = self.items_VE.norm(dim=1)
        self.is_finite = bool(self.length_V.isfinite().all())
        self.blocks = _blocks(self.items_VE).unbind() if on_cpu else None
        self._vectors = [block_ET[:-1] for block_ET in self.blocks or ()]

    @abstractmethod
    def queries(self, histories: Sessions) -> Tensor:
        """What item vectors are multiplied with, float32 of shape [N, E]."""

    def tile(self, queries: Tensor, first: int, last: int, out: Tensor | None = None) -> Tensor:
        """query . item + bias, [N, last - first]; of queries that are `relative`, what these are made for."""
        if self.blocks is not None and last - first == BLOCK and first % BLOCK == 0:
            relative = queries.shape[1] > self.items_VE.shape[1]
            vectors_ET = (self.blocks if relative else self._vectors)[first // BLOCK]
        elif self.blocks is not None and first % BLOCK == 0 and last - first <= BLOCK:
            vectors_ET = self.blocks[first // BLOCK][: queries.shape[1], : last - first]
        else:
            vectors_ET = self.items_VE[first:last].T
        scores_NT = torch.mm(queries, vectors_ET, out=out)
        return scores_NT if self.bias_V is None else scores_NT.add_(self.bias_V[first:last])

    def scores(self, queries: Tensor, column_NK: Tensor) -> Tensor:
        """query . item + bias of a few items of each history, [N, K]."""
        scores_NK = torch.bmm(self.items_VE[column_NK], queries.unsqueeze(2)).squeeze(2)
        return scores_NK if self.bias_V is None else scores_NK + self.bias_V[column_NK]

    def relative(self, queries: Tensor, score_N1: Tensor, rounding_N1: Tensor) -> Tensor | None:
        """[N, E + 1], to be multiplied with (item, 1); None on a GPU, where width E + 1 is slow, and where there are biases.

        None, too, where these numbers would not be exact enough: of narrow vectors, and for targets whose vector is zero or so
        short compared with the longest that scores in parts of its rounding leave float32.
        """
        if self.blocks is None or self.bias_V is not None or queries.shape[1] < LEAST_WIDTH:
            return None
        if bool((rounding_N1 <= queries.norm(dim=1, keepdim=True) * self.length_V.max() * 2.0**-60).any()):
            return None
        scale_N1 = 2 * rounding_N1
        return torch.cat([queries / scale_N1, 1.5 - score_N1 / scale_N1], 1)

    def rounding(self, queries: Tensor, column_NK: Tensor) -> Tensor:
        """sqrt(E) 2^-23 |query| |item|, and 2^-23 |bias|.

        A sum of E products in float32 is off by about sqrt(E) roundings of 2^-24, each of a size that |query| |item| bounds;
        two such sums by twice that. Measured for E from 8 to 1,024 and vectors of all kinds: at most half of it (LOG.md).
        """
        rounding_NK = queries.norm(dim=1, keepdim=True) * self.length_V[column_NK] * queries.shape[1] ** 0.5
        if self.bias_V is not None:
            rounding_NK = rounding_NK + self.bias_V[column_NK].abs()
        return rounding_NK * ROUNDING


class ModelScorer(VectorScorer):
    """A sequence model as ranking sees it: the state of each history against the item vectors, which are made once."""

    @torch.no_grad()
    def __init__(self, model: SequenceModel) -> None:
        self.model = model.eval()
        items_VE = model.next_item.catalogue(model.inputs.items).float()
        super().__init__(items_VE, model.next_item.bias_V, model.next_item.popularity_V > 0)

    @torch.no_grad()
    def queries(self, histories: Sessions) -> Tensor:
        """What item vectors are multiplied with, from the most recent events of each history, [N, E].

        Raises:
            DivergedError: when they or the item vectors are not finite.
        """
        parts = [self.model.next_item.query(h_ND).float() for h_ND in states(self.model, histories)]
        queries = torch.cat(parts) if parts else self.items_VE[:0]
        if not self.is_finite or not bool(queries.isfinite().all()):
            raise DivergedError(DIVERGED)
        return queries


def _blocks(items_VE: Tensor) -> Tensor:
    """[V / 1024, E + 1, 1024]: tiles of item vectors side by side above a row of ones, zeros behind the last item."""
    num_items, width = items_VE.shape
    blocks = items_VE.new_zeros(-(-num_items // BLOCK), width + 1, BLOCK)
    for block, first in enumerate(range(0, num_items, BLOCK)):
        tile_TE = items_VE[first : first + BLOCK]
        blocks[block, :width, : len(tile_TE)] = tile_TE.T
    blocks[:, width] = 1
    return blocks
