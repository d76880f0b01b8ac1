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

from modeling.evaluation import fused
from modeling.evaluation.lists import top_k
from modeling.evaluation.scorer import BLOCK, DIVERGED, Hidden, Scorer, Tiles, pairs_to_hide
from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID
from schemas.errors import DivergedError

__all__ = ["Scorer", "ranks", "top_k"]

# Histories whose scores are counted while they are in the processor's second cache (0.5 MB of a block's).
BLOCK_ROWS = 128
LOW_BYTES = 0x00FF00FF00FF00FF
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
    row_P = possible_N.nonzero().squeeze(1)
    for part in row_P.split(scorer.chunk) if len(row_P) else ():
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
    pair_N2 = torch.stack([torch.arange(len(histories), device=column_N.device), column_N], 1)
    device = score_N1.device.type
    fuses = relative is None and fused.takes(score_N1.device)
    rows, size = (BLOCK_ROWS, BLOCK) if relative is not None else (ROWS[device], TILE[device])
    size = fused.TILE if fuses else size if relative is not None else min(size, scorer.num_items)
    if size not in tiles:
        tiles[size] = Tiles(scorer, size)
    if fuses:
        pair_P2 = pairs_to_hide(histories, seen=filter_seen, also=pair_N2)
        return fused.above(scorer, tiles[size], queries, pair_P2, score_N1 - rounding_N1, score_N1 + rounding_N1)
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
    sums_MNH = torch.empty(len(tiles.spans), num_rows, 2, dtype=torch.int64)
    parts = relative.split(BLOCK_ROWS)
    views = [_views(room_RT, half_RT, len(part), BLOCK) for part in parts]
    for tile, (first, last) in enumerate(tiles.spans):
        width = last - first
        if width < BLOCK:
            half_RT.zero_()
            views = [_views(room_RT, half_RT, len(part), width) for part in parts]
        for part, (begin, end) in enumerate(hidden.parts):
            x_RT, to_RT, bytes_RHW = views[part]
            hidden.mask(scorer.tile(parts[part], first, last, out=x_RT), tile, part).clamp_(0.5, 2)
            to_RT.copy_(x_RT)
            torch.sum(bytes_RHW, 2, out=sums_MNH[tile, begin:end])
    # Bytes are added to their neighbours' before tiles are added, in 16 bits of which a tile fills nine.
    total_N = torch.zeros(num_rows, dtype=torch.int64)
    for some_MNH in sums_MNH.split(64):
        lanes_N = ((some_MNH & LOW_BYTES) + ((some_MNH >> 8) & LOW_BYTES)).sum((0, 2))
        total_N += lanes_N.view(torch.int16).view(num_rows, 4).long().bitwise_and(0xFFFF).sum(1)
    return 0.5 * total_N.double()


def _views(room_RT: Tensor, half_RT: Tensor, rows: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where a tile's numbers go, where their halves go, and these again as two runs of eight columns each."""
    x_RT = room_RT.view(-1)[: rows * width].view(rows, width)
    return x_RT, half_RT[:rows, :width], half_RT[:rows].view(torch.int64).view(rows, 2, BLOCK // 16)


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
