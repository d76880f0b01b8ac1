"""Exact ranks over the full catalogue, streamed in tiles, at about the price of the matrix product that makes the scores.

N histories of a chunk, R of them taken at a time, V items of the catalogue (column v is item id v + 3), T items of a tile.

Ties. A product of a history and an item is rounded differently in another place of a matrix, so scores of items that are equal
in mathematics differ in their last bits. Two scores tie when they differ by no more than `Scorer.rounding` says. A tie counts
half a place in a rank; in a list of recommendations the lower id comes first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modeling.evaluation.lists import top_k
from modeling.evaluation.scorer import BLOCK, DIVERGED, Hidden, Scorer, Tiles
from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID
from schemas.errors import DivergedError

__all__ = ["Scorer", "ranks", "top_k"]

# Histories whose scores are counted while they are in the processor's second cache (0.5 MB of a block's).
BLOCK_ROWS = 128
ROWS, TILE = {"cpu": 256, "cuda": 8192}, {"cpu": 2048, "cuda": 16384}  # where scores themselves are compared


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
    tiles: dict[int, Tiles] = {}
    for part in possible_N.nonzero().squeeze(1).split(scorer.chunk):
        above_N = _above(scorer, tiles, cases.history.select(part), column_N[part], filter_seen)
        rank_N[part] = 1 + above_N.to(rank_N.device)
        progress(len(part))
    return rank_N


def _above(scorer: Scorer, tiles: dict[int, Tiles], histories: Sessions, column_N: Tensor, filter_seen: bool) -> Tensor:
    """How many items are better than the targets, and half of those that tie with them, float64 of shape [N]."""
    queries, column_N1 = scorer.queries(histories), column_N.unsqueeze(1)
    score_N1, rounding_N1 = scorer.scores(queries, column_N1), scorer.rounding(queries, column_N1)
    if not score_N1.isfinite().all():
        raise DivergedError(DIVERGED)
    relative = scorer.relative(queries, score_N1, rounding_N1)
    device = score_N1.device.type
    rows, size = (BLOCK_ROWS, BLOCK) if relative is not None else (ROWS[device], TILE[device])
    size = min(size, scorer.num_items) if relative is None else size
    if size not in tiles:
        tiles[size] = Tiles(scorer, size)
    pair_N2 = torch.stack([torch.arange(len(histories), device=column_N.device), column_N], 1)
    hidden = Hidden(tiles[size], histories, rows, seen=filter_seen, also=pair_N2)
    if relative is not None:
        return _from_halves(scorer, hidden, relative)
    return _from_scores(scorer, hidden, queries, score_N1 - rounding_N1, score_N1 + rounding_N1)


def _from_halves(scorer: Scorer, hidden: Hidden, relative: Tensor) -> Tensor:
    """Count by what `Scorer.relative` makes: cut to 0.5 .. 2 and to an integer, 2 is an item above, 1 a tie, 0 an item below.

    These are bytes, and bytes are added up eight columns at once as int64, 64 of them so that no byte's sum leaves 0 .. 255.
    Comparing twice and adding floats costs twice as much.
    """
    num_rows, tiles = len(relative), hidden.tiles
    room_RT = relative.new_empty(BLOCK_ROWS, BLOCK)
    half_RT = torch.zeros(BLOCK_ROWS, BLOCK, dtype=torch.int8)
    half_RHW = half_RT.view(torch.int64).view(BLOCK_ROWS, 2, 64)
    sums_MNH = torch.empty(len(tiles.spans), num_rows, 2, dtype=torch.int64)
    parts = [(begin, end, relative[begin:end], half_RHW[: end - begin]) for begin, end in hidden.parts]
    for tile, (first, last) in enumerate(tiles.spans):
        width = last - first
        if width < BLOCK:
            half_RT.zero_()
            room_RT = room_RT.view(-1)[: BLOCK_ROWS * width].view(BLOCK_ROWS, width)
        for part, (begin, end, queries, bytes_RHW) in enumerate(parts):
            x_RT = scorer.tile(queries, first, last, out=room_RT[: end - begin])
            hidden.mask(x_RT, tile, part).clamp_(0.5, 2)
            half_RT[: end - begin, :width].copy_(x_RT)
            torch.sum(bytes_RHW, 2, out=sums_MNH[tile, begin:end])
    bytes_MNB = sums_MNH.view(torch.uint8).view(len(tiles.spans), num_rows, 16)
    return 0.5 * bytes_MNB.sum(2).sum(0).double()


def _from_scores(scorer: Scorer, hidden: Hidden, queries: Tensor, least_N1: Tensor, most_N1: Tensor) -> Tensor:
    above_N = torch.zeros(len(queries), dtype=torch.float64, device=least_N1.device)
    for tile, (first, last) in enumerate(hidden.tiles.spans):
        for part, (begin, end) in enumerate(hidden.parts):
            scores_RT = hidden.mask(scorer.tile(queries[begin:end], first, last), tile, part)
            better_R = _count(torch.gt, scores_RT, most_N1[begin:end])
            above_N[begin:end] += 0.5 * (better_R + _count(torch.ge, scores_RT, least_N1[begin:end]))
    return above_N


def _count(compare: Callable[..., Tensor], scores_RT: Tensor, limit_R1: Tensor) -> Tensor:
    """How many scores of each row are beyond its limit."""
    if scores_RT.device.type != "cpu":
        return compare(scores_RT, limit_R1).sum(1)
    # 0 and 1 as floats: on a CPU half the time of counting booleans.
    return compare(scores_RT, limit_R1, out=torch.empty_like(scores_RT)).sum(1)
