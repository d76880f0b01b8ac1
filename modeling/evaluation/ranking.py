"""Exact ranks over the full catalogue and the best k items, streamed in tiles. One place hides what is not to be ranked.

N histories at a time, V items of the catalogue (column v is item id v + 3), T items of a tile, K recommendations.

Ties. A product of a history and an item is rounded differently in another place of a matrix, so scores of items that are equal
in mathematics differ in their last bits. Two scores tie when they differ by no more than `Scorer.rounding` says. A tie counts
half a place in a rank; in a list of recommendations the lower id comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID
from schemas.errors import DivergedError

TILE = 2048  # items scored at a time, whose scores stay in the processor's cache while they are counted
LIST_TILE = 8192  # the same for lists: torch.topk costs half as much an item as over a quarter of them
DIVERGED = "scores are not finite: the model has diverged (try a lower learning_rate)"


class Scorer(Protocol):
    """A model or a baseline, as ranking sees it."""

    @property
    def num_items(self) -> int:
        """V."""

    @property
    def chunk(self) -> int:
        """Histories to take at a time."""

    @property
    def rankable_V(self) -> Tensor:
        """Which items may be ranked and recommended, bool: those with a training event, and those that were appended."""

    def queries(self, histories: Sessions) -> Any:
        """What `tile` needs to score the items for these histories."""

    def tile(self, queries: Any, first: int, last: int) -> Tensor:
        """Scores of the catalogue's items first .. last - 1, shape [N, last - first]; a new tensor each time."""

    def rounding(self, queries: Any, column_NK: Tensor) -> Tensor:
        """How far apart rounding alone can set the scores of items that are equal to those of the columns, [N, K]."""


@torch.no_grad()
def ranks(
    scorer: Scorer, cases: Cases, *, filter_seen: bool = False, progress: Callable[[int], object] = lambda done: None
) -> Tensor:
    """The rank of each case's target among all items, float64 of shape [N], from 1; an item that ties counts half.

    The rank is infinity, a miss, where `top_k` can never show the target: one outside the scorer's catalogue or that may not
    be ranked, and with `filter_seen` one that the history holds.

    Raises:
        DivergedError: when scores are not finite.
    """
    column_N = cases.target - FIRST_ID
    possible_N = (column_N >= 0) & (column_N < scorer.num_items)
    possible_N &= scorer.rankable_V.to(column_N.device)[column_N.clamp(0, scorer.num_items - 1)]
    if filter_seen:
        possible_N &= ~cases.seen()
    rank_N = torch.full(column_N.shape, torch.inf, dtype=torch.float64, device=column_N.device)
    index = possible_N.nonzero().squeeze(1)
    # In order of their targets, cases of a chunk have these in few tiles, whose scores are kept until they are counted.
    for part in index[column_N[index].argsort(stable=True)].split(scorer.chunk):
        rank_N[part] = _ranks(scorer, cases.history.select(part), column_N[part], filter_seen).to(rank_N.device)
        progress(len(part))
    return rank_N


def _ranks(scorer: Scorer, histories: Sessions, column_N: Tensor, filter_seen: bool) -> Tensor:
    queries = scorer.queries(histories)
    score_N, kept = _target_scores(scorer, queries, column_N)
    if not score_N.isfinite().all():
        raise DivergedError(DIVERGED)
    score_N1 = score_N.unsqueeze(1)
    rounding_N1 = scorer.rounding(queries, column_N.unsqueeze(1))
    least_N1, most_N1 = score_N1 - rounding_N1, score_N1 + rounding_N1
    rows = torch.arange(len(histories), device=column_N.device)
    hidden = Hidden(scorer, histories if filter_seen else None, torch.stack([rows, column_N], 1))
    above_N = torch.zeros(len(histories), dtype=torch.float64, device=score_N.device)
    room_NT = score_N.new_empty(len(histories), min(TILE, scorer.num_items))
    ones_T = score_N.new_ones(room_NT.shape[1])
    for first, last in hidden.tiles(TILE):
        scores_NT = hidden.mask(kept.pop(first) if first in kept else scorer.tile(queries, first, last), first)
        # 0 and 1 as floats, in memory held for them, and their sums as a product: half the time of counting booleans.
        above_NT = torch.gt(scores_NT, most_N1, out=room_NT[:, : last - first])
        ones = ones_T[: last - first]
        above_N += 0.5 * (above_NT.mv(ones) + scores_NT.ge_(least_N1).mv(ones))
    return 1 + above_N


def _target_scores(scorer: Scorer, queries: Any, column_N: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """The targets' scores, read out of the tiles that they lie in; and up to two of these tiles by their first item."""
    first_N = column_N // TILE * TILE
    score_N = torch.empty(0)
    kept: dict[int, Tensor] = {}
    for first in first_N.unique().tolist():
        scores_NT = scorer.tile(queries, first, min(first + TILE, scorer.num_items))
        of_NT = scores_NT.gather(
            1, (column_N - first).clamp(0, scores_NT.shape[1] - 1).unsqueeze(1).to(scores_NT.device)
        )
        inside_N = (first_N == first).to(scores_NT.device)
        score_N = torch.where(inside_N, of_NT.squeeze(1), score_N if len(score_N) else of_NT.squeeze(1))
        if len(kept) < 2:
            kept[first] = scores_NT
    return score_N, kept


@torch.no_grad()
def top_k(scorer: Scorer, histories: Sessions, k: int, *, filter_seen: bool = False) -> tuple[Tensor, Tensor]:
    """The ids of the k best items and their scores, best first, of ties the lower id: [N, k], or [N, V] of a smaller catalogue.

    Items that tie are given the score of the best of them. Where fewer than k items are left, the id is 0 and the score -inf.

    Raises:
        DivergedError: when scores are not finite.
    """
    k = min(k, scorer.num_items)
    rows = scorer.chunk if k < TILE else max(1, scorer.chunk * TILE // k)  # long lists take room too
    ids, best = [], []
    for part in torch.arange(len(histories), device=histories.starts.device).split(rows):
        chosen = histories.select(part)
        queries, hidden = scorer.queries(chosen), Hidden(scorer, chosen if filter_seen else None)
        scores_NK, column_NK = _best(scorer, queries, hidden, k)
        scores_NK, column_NK = _lower_ids_first(scores_NK, column_NK, scorer.rounding(queries, column_NK))
        ids.append(torch.where(scores_NK > -torch.inf, column_NK + FIRST_ID, 0))
        best.append(scores_NK)
    if not ids:
        return torch.empty(0, k, dtype=torch.long), torch.empty(0, k)
    return torch.cat(ids), torch.cat(best)


def _best(scorer: Scorer, queries: Any, hidden: Hidden, k: int) -> tuple[Tensor, Tensor]:
    """Scores and columns of the k best items of each history, those with the lower ids of the ones that tie with the k-th."""
    scores_NB, columns_NB = torch.empty(0), torch.empty(0, dtype=torch.long)
    for first, last in hidden.tiles(max(LIST_TILE, k + 1)):
        scores_NT = hidden.mask(scorer.tile(queries, first, last), first)
        best_NB, column_NB = scores_NT.topk(min(k + 1, last - first), sorted=False)
        column_NB = column_NB + first
        if len(scores_NB):
            best_NB, column_NB = torch.cat([scores_NB, best_NB], 1), torch.cat([columns_NB, column_NB], 1)
        scores_NB, place_NB = best_NB.topk(min(k + 1, best_NB.shape[1]))
        columns_NB = column_NB.gather(1, place_NB)
    if scores_NB.isnan().any():
        raise DivergedError(DIVERGED)
    scores_NK, column_NK = scores_NB[:, :k], columns_NB[:, :k]
    if scores_NB.shape[1] > k:
        rounding_N = scorer.rounding(queries, column_NK[:, -1:]).squeeze(1)
        tied_N = (scores_NK[:, -1] - scores_NB[:, k] <= rounding_N) & (scores_NB[:, k] > -torch.inf)
        if tied_N.any():
            _fill_up(scorer, queries, hidden, scores_NK, column_NK, tied_N, rounding_N)
    return scores_NK, column_NK


def _fill_up(
    scorer: Scorer,
    queries: Any,
    hidden: Hidden,
    scores_NK: Tensor,
    column_NK: Tensor,
    tied_N: Tensor,
    rounding_N: Tensor,
) -> None:
    """Let the places of the items that tie with the k-th best be taken by those of the lowest ids, in place."""
    row_R = tied_N.nonzero().squeeze(1)
    border_R1, rounding_R1 = scores_NK[row_R, -1:], rounding_N[row_R].unsqueeze(1)
    filled_R = (scores_NK[row_R] > border_R1 + rounding_R1).sum(1)
    k = scores_NK.shape[1]
    for first, last in hidden.tiles(TILE):
        scores_RT = hidden.mask(scorer.tile(queries, first, last), first)[row_R]
        ties_RT = (scores_RT - border_R1).abs() <= rounding_R1
        place_RT = filled_R.unsqueeze(1) + ties_RT.cumsum(1) - 1
        r, t = (ties_RT & (place_RT < k)).nonzero(as_tuple=True)
        scores_NK[row_R[r], place_RT[r, t]] = scores_RT[r, t]
        column_NK[row_R[r], place_RT[r, t]] = t + first
        filled_R = filled_R + ties_RT.sum(1)
        if bool((filled_R >= k).all()):
            return


def _lower_ids_first(scores_NK: Tensor, column_NK: Tensor, rounding_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Best first; neighbours that tie form a group, with one score and in order of columns."""
    scores_NK, place_NK = scores_NK.sort(dim=1, descending=True)
    column_NK, rounding_NK = column_NK.gather(1, place_NK), rounding_NK.gather(1, place_NK)
    begins_NK = torch.ones_like(scores_NK, dtype=torch.bool)
    begins_NK[:, 1:] = ~(scores_NK[:, :-1] - scores_NK[:, 1:] <= rounding_NK[:, 1:])
    group_NK = begins_NK.cumsum(1) - 1
    order_NK = (group_NK * (column_NK.max() + 1) + column_NK).argsort(1) if column_NK.numel() else column_NK
    place_NK = torch.arange(scores_NK.shape[1], device=scores_NK.device).expand_as(scores_NK)
    best_NK = scores_NK.gather(1, place_NK.where(begins_NK, 0).cummax(1).values)
    return best_NK.gather(1, order_NK), column_NK.gather(1, order_NK)


class Hidden:
    """What must not be ranked in a chunk, set to -inf wherever a tile shows it: items that no training event has, the items
    that histories hold, and other (history, item) pairs.
    """

    def __init__(self, scorer: Scorer, seen: Sessions | None, also: Tensor | None = None) -> None:
        pairs = [] if also is None else [also]
        if seen is not None:
            session, event = seen.event_index()
            pairs.append(torch.stack([session, seen.items[event].long() - FIRST_ID], 1))
        pair = torch.cat(pairs) if pairs else torch.empty(0, 2, dtype=torch.long)
        pair = pair[(pair[:, 1] >= 0) & (pair[:, 1] < scorer.num_items)]
        self.row, self.column = pair[pair[:, 1].argsort()].T.contiguous()
        self.never = (~scorer.rankable_V).nonzero().squeeze(1)
        self.num_items = scorer.num_items

    def tiles(self, size: int) -> Iterator[tuple[int, int]]:
        """(first, last + 1) of the tiles that hold an item to rank."""
        edges = range(0, self.num_items, size)
        for first in edges:
            last = min(first + size, self.num_items)
            low, high = _between(self.never, first, last)
            if high - low < last - first or len(edges) == 1:
                yield first, last

    def mask(self, scores_NT: Tensor, first: int) -> Tensor:
        """Hide, in place, what falls into the tile that begins at item `first`."""
        last = first + scores_NT.shape[1]
        low, high = _between(self.column, first, last)
        scores_NT[self.row[low:high], self.column[low:high] - first] = -torch.inf
        low, high = _between(self.never, first, last)
        if high > low:
            scores_NT.index_fill_(1, self.never[low:high] - first, -torch.inf)
        return scores_NT


def _between(sorted_columns: Tensor, first: int, last: int) -> tuple[int, int]:
    edges = torch.tensor([first, last], device=sorted_columns.device)
    low, high = torch.searchsorted(sorted_columns, edges).tolist()
    return low, high
