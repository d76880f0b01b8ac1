"""What ranking asks of a model or a baseline, the tiles in which it goes through a catalogue, and what is hidden in them.

N histories of a chunk, R of them taken at a time, V items of the catalogue (column v is item id v + 3), T items of a tile,
P pairs of a history and an item, K items of a list.

On a GPU the host reads from the device once a call, and a fixed few times a chunk: bounds of all tiles are read together.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from modeling.sessions import Sessions
from schemas.columns import FIRST_ID

BLOCK = 1024  # items of a tile on a CPU
DIVERGED = "scores are not finite: the model has diverged (try a lower learning_rate)"


class Scorer(Protocol):
    """A model or a baseline, as ranking sees it."""

    @property
    def num_items(self) -> int:
        """V."""

    @property
    def chunk(self) -> int:
        """N, histories whose queries are made at a time."""

    @property
    def rankable_V(self) -> Tensor:
        """Which items may be ranked and recommended, bool: those with a training event, and those that were appended."""

    def queries(self, histories: Sessions) -> Tensor:
        """What `tile` needs to score the items for these histories, one row each."""

    def tile(self, queries: Tensor, first: int, last: int, out: Tensor | None = None) -> Tensor:
        """Scores of the catalogue's items first .. last - 1, shape [N, last - first], in `out` or a new tensor."""

    def scores(self, queries: Tensor, column_NK: Tensor) -> Tensor:
        """Scores of a few items of each history, [N, K]."""

    def rounding(self, queries: Tensor, column_NK: Tensor) -> Tensor:
        """How far apart rounding alone can set the scores of items that are equal to those of the columns, [N, K]."""

    def relative(self, queries: Tensor, score_N1: Tensor, rounding_N1: Tensor) -> Tensor | None:
        """Queries of which `tile` makes 1.5 + (score - score_N1) / (2 rounding_N1) of BLOCK items; None where there are none.

        That is 2 or more for an item that is better by more than rounding, below 1 for a worse one, between for a tie.
        """


class Tiles:
    """The tiles of T items of a catalogue, `spans`: (first, last + 1), those left out that hold no item to rank."""

    def __init__(self, scorer: Scorer, size: int) -> None:
        self.size, self.num_items = size, scorer.num_items
        never = (~scorer.rankable_V).nonzero().squeeze(1)
        starts = range(0, self.num_items, size)
        edges = torch.arange(len(starts) + 1, device=never.device) * size
        bounds = torch.searchsorted(never, edges).tolist()
        self.never = never % size  # columns of their tile
        self._bounds = [(bounds[tile], bounds[tile + 1]) for tile in range(len(starts))]
        self.spans = [(first, min(first + size, self.num_items)) for first in starts]
        some = [tile for tile, (low, high) in enumerate(self._bounds) if high - low < self._width(tile)] or [0]
        self._bounds, self.spans = [self._bounds[tile] for tile in some], [self.spans[tile] for tile in some]

    @property
    def num_scored(self) -> int:
        """Items of all tiles together, hidden ones too."""
        return sum(last - first for first, last in self.spans)

    def hide(self, scores_RT: Tensor, tile: int) -> None:
        """Set the items of spans[tile] that may not be ranked to -inf, in place."""
        low, high = self._bounds[tile]
        if (high - low) * 16 > scores_RT.shape[1]:  # then one pass over all costs less than column after column
            penalty_T = scores_RT.new_zeros(scores_RT.shape[1]).index_fill_(0, self.never[low:high], -torch.inf)
            scores_RT += penalty_T
        elif high > low:
            scores_RT.index_fill_(1, self.never[low:high], -torch.inf)

    def _width(self, tile: int) -> int:
        first, last = self.spans[tile]
        return last - first


class Hidden:
    """What must not be ranked in a chunk, R histories at a time, set to -inf in each tile: items that may never be, the items
    that histories hold, and other (history, column) pairs.
    """

    def __init__(self, tiles: Tiles, histories: Sessions, rows: int, *, seen: bool, also: Tensor | None = None) -> None:
        self.tiles, pair_P2 = tiles, pairs_to_hide(histories, seen=seen, also=also)
        self.parts = [(first, min(first + rows, len(histories))) for first in range(0, len(histories), rows)]
        self._any, self._some_never = seen or also is not None, bool(len(tiles.never))
        self._first_of = [first // tiles.size * len(self.parts) for first, _ in tiles.spans]
        if self._any:
            self._sort(pair_P2, rows)

    def _sort(self, pair_P2: Tensor, rows: int) -> None:
        size, num_parts, num_items = self.tiles.size, len(self.parts), self.tiles.num_items
        row_P, column_P = pair_P2.T
        inside_P = (column_P >= 0) & (column_P < num_items)
        end = (num_items // size + 1) * num_parts
        key_P = torch.where(inside_P, (column_P // size) * num_parts + row_P // rows, end)
        if key_P.device.type == "cpu":  # numpy sorts these in a third of torch's time
            order_P = torch.from_numpy(np.argsort(key_P.numpy()))
            key_P = key_P[order_P]
        else:
            key_P, order_P = key_P.sort()
        row_P, column_P = row_P[order_P] % rows, column_P[order_P]
        width_P = (num_items - column_P // size * size).clamp(max=size)  # the last tile's is less
        self._place_P = row_P * width_P + column_P % size
        self._place_of_cpu_P = self._place_P.numpy() if self._place_P.device.type == "cpu" else None
        self._bounds = torch.searchsorted(key_P, torch.arange(end + 1, device=key_P.device)).tolist()

    def mask(self, scores_RT: Tensor, tile: int, part: int, flat: np.ndarray | None = None) -> Tensor:
        """Hide, in place, what falls into tiles.spans[tile] and parts[part]; the scores are contiguous, `flat` on a CPU."""
        if self._any:
            place = self._first_of[tile] + part
            low, high = self._bounds[place], self._bounds[place + 1]
            if high > low:
                if self._place_of_cpu_P is not None:  # a third of the time of index_fill_ for as few as these
                    flat = scores_RT.view(-1).numpy() if flat is None else flat
                    flat[self._place_of_cpu_P[low:high]] = -torch.inf
                else:
                    scores_RT.view(-1).index_fill_(0, self._place_P[low:high], -torch.inf)
        if self._some_never:
            self.tiles.hide(scores_RT, tile)
        return scores_RT


def pairs_to_hide(histories: Sessions, *, seen: bool, also: Tensor | None = None) -> Tensor:
    """(history, column) of what must not be ranked for it, int64 of shape [P, 2]: what `also` has, and items that it holds.

    Columns may be outside the catalogue, pairs may come twice.
    """
    pairs = [histories.starts.new_empty(0, 2) if also is None else also]
    if seen:
        session, event = histories.seen_index()
        pairs.append(torch.stack([session, histories.items[event].long() - FIRST_ID], 1))
    return torch.cat(pairs)
