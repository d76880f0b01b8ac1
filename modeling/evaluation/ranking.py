"""Exact ranks over the full catalogue and the best k items, streamed in tiles. One place masks the items already seen.

N histories at a time, V items of the catalogue (column v is item id v + 3), T items of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID

TILE = 4096


class Scorer(Protocol):
    """A model or a baseline, as ranking sees it."""

    num_items: int
    chunk: int  # histories to take at a time

    def queries(self, histories: Sessions) -> Any:
        """Whatever `tile` needs to score the items for these histories."""

    def tile(self, queries: Any, first: int, last: int) -> Tensor:
        """Scores of the catalogue's items first .. last - 1, shape [N, last - first]; a new tensor each time."""

    def of_targets(self, queries: Any, target_N: Tensor) -> Tensor:
        """Scores of one item (as a column) per history, shape [N]."""


@torch.no_grad()
def ranks(
    scorer: Scorer, cases: Cases, *, filter_seen: bool = False, progress: Callable[[int], object] = lambda done: None
) -> Tensor:
    """The rank of each case's target among all items, shape [N], from 1; an item that ties counts half.

    A target outside the scorer's catalogue has the rank infinity. The target itself is never compared with its own score,
    which a matrix product and a dot product round differently. A seen item that is the target stays in.

    Raises:
        FloatingPointError: when scores are not finite.
    """
    found = []
    for histories, target_N in _chunks(cases, scorer.chunk):
        column_N = target_N - FIRST_ID
        inside_N = (column_N >= 0) & (column_N < scorer.num_items)
        column_N = column_N.clamp(0, scorer.num_items - 1)
        queries = scorer.queries(histories)
        score_N1 = scorer.of_targets(queries, column_N).unsqueeze(1)
        if not score_N1.isfinite().all():
            raise FloatingPointError("scores are not finite: the model has diverged (try a lower learning_rate)")
        rows = torch.arange(len(histories), device=column_N.device)
        hidden = Hidden(histories if filter_seen else None, torch.stack([rows, column_N], 1))
        above_N = torch.zeros(len(histories), device=score_N1.device)
        for first, scores_NT in _tiles(scorer, queries):
            hidden.mask(scores_NT, first)
            above_N += (scores_NT > score_N1).sum(1) + 0.5 * (scores_NT == score_N1).sum(1)
        found.append(torch.where(inside_N, 1 + above_N, torch.inf))
        progress(len(histories))
    return torch.cat(found) if found else torch.empty(0)


@torch.no_grad()
def top_k(scorer: Scorer, histories: Sessions, k: int, *, filter_seen: bool = False) -> tuple[Tensor, Tensor]:
    """The ids of the k best items and their scores, two tensors of shape [N, k], best first; of equals the lower id.

    Where fewer than k items are left, the id is 0 and the score -inf.
    """
    ids, best = [], []
    for start in range(0, len(histories), scorer.chunk):
        part = histories.select(torch.arange(start, min(start + scorer.chunk, len(histories))))
        queries = scorer.queries(part)
        hidden = Hidden(part if filter_seen else None, torch.empty(0, 2, dtype=torch.long, device=part.items.device))
        scores_NK, columns_NK = torch.empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.long)
        for first, scores_NT in _tiles(scorer, queries):
            hidden.mask(scores_NT, first)
            columns_NT = torch.arange(first, first + scores_NT.shape[1]).expand_as(scores_NT)
            scores_NK = torch.cat([scores_NK.to(scores_NT), scores_NT], 1)
            columns_NK = torch.cat([columns_NK.to(scores_NT.device), columns_NT.to(scores_NT.device)], 1)
            scores_NK, place = scores_NK.sort(stable=True, dim=1, descending=True)
            scores_NK, columns_NK = scores_NK[:, :k], columns_NK.gather(1, place[:, :k])
        ids.append(torch.where(scores_NK > -torch.inf, columns_NK + FIRST_ID, 0))
        best.append(scores_NK)
    return torch.cat(ids), torch.cat(best)


class Hidden:
    """The (history, item) pairs of a chunk that must not be ranked: set to -inf wherever a tile shows them."""

    def __init__(self, seen: Sessions | None, also: Tensor) -> None:
        pairs = [also]
        if seen is not None:
            session, event = seen.event_index()
            pairs.append(torch.stack([session, seen.items[event].long() - FIRST_ID], 1))
        pair = torch.cat(pairs)
        pair = pair[pair[:, 1] >= 0]
        self.row, self.column = pair[pair[:, 1].argsort()].unbind(1)

    def mask(self, scores_NT: Tensor, first: int) -> None:
        """Hide, in place, what falls into the tile that begins at item `first`."""
        edges = torch.tensor([first, first + scores_NT.shape[1]], device=self.column.device)
        low, high = torch.searchsorted(self.column.contiguous(), edges).tolist()
        scores_NT[self.row[low:high], self.column[low:high] - first] = -torch.inf


def _chunks(cases: Cases, size: int) -> Iterator[tuple[Sessions, Tensor]]:
    for start in range(0, len(cases.target), size):
        index = torch.arange(start, min(start + size, len(cases.target)))
        yield cases.history.select(index), cases.target[index]


def _tiles(scorer: Scorer, queries: Any) -> Iterator[tuple[int, Tensor]]:
    for first in range(0, scorer.num_items, TILE):
        yield first, scorer.tile(queries, first, min(first + TILE, scorer.num_items))
