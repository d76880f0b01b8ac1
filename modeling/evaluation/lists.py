"""The best k items of the full catalogue for each history, exactly, streamed in tiles.

N histories of a chunk, R of them taken at a time, V items of the catalogue, T items of a tile, K recommendations, G groups of
items of a tile, B items that are kept.

Of two items that tie (see `ranking`) the lower id comes first. On a CPU most of a tile is never looked at: a first pass finds
the maximum of each group of 16 items, and only groups whose maximum reaches the k-th best so far are opened: those of the
first tiles together, for the limit is high by then, those of later ones tile by tile. On a GPU, where the host must not wait
for what a tile holds, as many groups as could matter are opened in each tile, or by kernels of its own (see `fused`) of the
whole catalogue.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.evaluation import fused
from modeling.evaluation.candidates import GROUP, Candidates, Room, best_of_tile
from modeling.evaluation.scorer import BLOCK, DIVERGED, Hidden, Scorer, Tiles, pairs_to_hide
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID
from schemas.errors import DivergedError

GROUP_ROWS = 128  # histories whose scores of a block are looked through while they are in the second cache
ROWS, TILE = {"cpu": 1024, "cuda": 8192}, {"cpu": 8 * BLOCK, "cuda": 16 * BLOCK}
LONGEST = 1000  # of lists that are made from groups of a block
WHOLE_CHUNK = 100  # items of a list that are made for a whole chunk of histories at a time; longer ones for fewer


@torch.no_grad()
def top_k(scorer: Scorer, histories: Sessions, k: int, *, filter_seen: bool = False) -> tuple[Tensor, Tensor]:
    """The ids of the k best items and their scores, best first, of ties the lower id: [N, k], or [N, V] of a smaller catalogue.

    Items that tie are given the score of the best of them. Where fewer than k items are left, the id is 0 and the score -inf.

    Raises:
        DivergedError: when scores are not finite.
    """
    k, where = min(k, scorer.num_items), scorer.rankable_V.device
    if not len(histories):
        return torch.empty(0, k, dtype=torch.long, device=where), torch.empty(0, k, device=where)
    device = where.type
    by_groups = device == "cpu" and k <= LONGEST and scorer.num_items > 4 * BLOCK
    fuses = not by_groups and k <= fused.LONGEST and fused.takes(where)
    size = BLOCK if by_groups else min(max(TILE[device], k + 1), scorer.num_items)
    if fuses:
        size = fused.tile_of(fused.rows_of(scorer.num_items, min(scorer.chunk, len(histories))))
    tiles = Tiles(scorer, size)
    most = WHOLE_CHUNK if by_groups else TILE[device]
    rows = scorer.chunk if k <= most else max(1, scorer.chunk * most // k)  # long lists take room too
    room = Room(min(rows, len(histories)), BLOCK, len(tiles.spans)) if by_groups else None
    ids, best = [], []
    for part in torch.arange(len(histories), device=histories.starts.device).split(rows):
        chosen = histories.select(part)
        queries = scorer.queries(chosen)
        if fuses:
            ranked = fused.best(scorer, tiles, queries, pairs_to_hide(chosen, seen=filter_seen), k)
        elif room is not None:
            ranked = _by_groups(scorer, queries, Hidden(tiles, chosen, GROUP_ROWS, seen=filter_seen), k, room)
        else:
            ranked = _by_tiles(scorer, queries, Hidden(tiles, chosen, ROWS[device], seen=filter_seen), k)
        scores_NB, column_NB, least_N = ranked
        if not bool((scores_NB < torch.inf).all()):  # NaN or infinite
            raise DivergedError(DIVERGED)
        scores_NK, column_NK = _first_of_ties(
            scorer, queries, chosen if filter_seen else None, (scores_NB, column_NB, least_N), k
        )
        scores_NK, column_NK = lower_ids_first(scores_NK, column_NK, scorer.rounding(queries, column_NK))
        ids.append(torch.where(scores_NK > -torch.inf, column_NK + FIRST_ID, 0))
        best.append(scores_NK)
    return torch.cat(ids), torch.cat(best)


def _by_groups(scorer: Scorer, queries: Tensor, hidden: Hidden, k: int, room: Room) -> tuple[Tensor, Tensor, Tensor]:
    """More than the best k, best first, their columns, and the score above which none is missing: [N, B], [N, B], [N]."""
    candidates = Candidates(room, len(queries), k)
    held = [_views(candidates, place, queries, hidden) for place in range(len(candidates.scores_WNT))]
    passing = [_views(candidates, place, queries, hidden, passing=True) for place in range(len(held))]
    for tile, (first, last) in enumerate(hidden.tiles.spans):
        width, place = last - first, candidates.next_tile(first)
        views = passing if candidates.at_once else held
        for part, (some, scores_RT, flat, groups_RGT, most_RG, maxima_RG) in enumerate(views[place]):
            if width == BLOCK:
                scorer.tile(some, first, last, out=scores_RT)
                hidden.mask(scores_RT, tile, part, flat)
            else:
                narrow_RT = hidden.mask(scorer.tile(some, first, last), tile, part)
                scores_RT.copy_(F.pad(narrow_RT, (0, BLOCK - width), value=-torch.inf))
            torch.amax(groups_RGT, 1, out=most_RG)  # while the scores are in the second cache
            if candidates.at_once:
                candidates.open(hidden.parts[part][0], flat, maxima_RG)
    return candidates.best()


def _views(
    candidates: Candidates, place: int, queries: Tensor, hidden: Hidden, *, passing: bool = False
) -> list[tuple[Tensor, Tensor, np.ndarray, Tensor, Tensor, np.ndarray]]:
    """Of each part of the histories: queries, where their scores of a tile go, these in a row, these by groups, and where
    maxima go, twice; of all parts to the same memory if they are `passing`.
    """
    scores_NT, most_NG = candidates.scores_WNT[0 if passing else place], candidates.most_WNG[place]
    views = []
    for begin, end in hidden.parts:
        scores_RT, most_RG = scores_NT[: end - begin] if passing else scores_NT[begin:end], most_NG[begin:end]
        groups_RGT = scores_RT.view(-1, GROUP, most_NG.shape[1])
        views.append((queries[begin:end], scores_RT, scores_RT.view(-1).numpy(), groups_RGT, most_RG, most_RG.numpy()))
    return views


def _by_tiles(scorer: Scorer, queries: Tensor, hidden: Hidden, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best k + 1 (or all), best first, their columns, and the score above which none is missing."""
    parts = []
    for part, (begin, end) in enumerate(hidden.parts):
        scores_RB, columns_RB = queries.new_empty(end - begin, 0), queries.new_empty(end - begin, 0, dtype=torch.long)
        for tile, (first, last) in enumerate(hidden.tiles.spans):
            scores_RT = hidden.mask(scorer.tile(queries[begin:end], first, last), tile, part)
            best_RB, column_RB = best_of_tile(scores_RT, k + 1)
            best_RB, column_RB = torch.cat([scores_RB, best_RB], 1), torch.cat([columns_RB, column_RB + first], 1)
            scores_RB, place_RB = best_RB.topk(min(k + 1, best_RB.shape[1]))
            columns_RB = column_RB.gather(1, place_RB)
        least_R = scores_RB[:, -1] if scores_RB.shape[1] > k else scores_RB.new_full((end - begin,), -torch.inf)
        parts.append((scores_RB, columns_RB, least_R))
    scores, columns, least = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(columns), torch.cat(least)


def _first_of_ties(
    scorer: Scorer, queries: Tensor, seen: Sessions | None, ranked: tuple[Tensor, Tensor, Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """The list of each history: of the items that tie with the k-th best, those with the lowest ids take the last places.

    `ranked` is what `_by_groups` and `_by_tiles` give. Where it lacks some of those ties, the catalogue is read again.
    """
    scores_NB, column_NB, least_N = ranked
    if scores_NB.shape[1] <= k:
        return scores_NB, column_NB
    border_N1 = scores_NB[:, k - 1 : k]
    rounding_N1 = scorer.rounding(queries, column_NB[:, k - 1 : k])
    next_N1 = torch.maximum(scores_NB[:, k], least_N).unsqueeze(1)  # no item that is missing is better than `least_N`
    tied_N = ((border_N1 - next_N1 <= rounding_N1) & (border_N1 > -torch.inf)).squeeze(1)
    scores_NK, column_NK = scores_NB[:, :k].contiguous(), column_NB[:, :k].contiguous()
    row_R = tied_N.nonzero().squeeze(1)
    if not len(row_R):
        return scores_NK, column_NK
    lacks_R = (border_N1 - rounding_N1).squeeze(1)[row_R] <= least_N[row_R]
    for rows, again in ((row_R[~lacks_R], False), (row_R[lacks_R], True)):
        if len(rows):
            scores_RB, column_RB, border_R1, rounding_R1 = (
                of_N[rows] for of_N in (scores_NB, column_NB, border_N1, rounding_N1)
            )
            if again:
                ties = _ties(scorer, queries[rows], seen and seen.select(rows), border_R1, rounding_R1, k)
                above_RB = scores_RB.where(scores_RB > border_R1 + rounding_R1, -torch.inf)
                scores_RB, column_RB = torch.cat([above_RB, ties[0]], 1), torch.cat([column_RB, ties[1]], 1)
            scores_NK[rows], column_NK[rows] = _filled(scores_RB, column_RB, border_R1, rounding_R1, k)
    return scores_NK, column_NK


def _filled(
    scores_RB: Tensor, column_RB: Tensor, border_R1: Tensor, rounding_R1: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """All items above the border, then those that tie with it from the lowest id, [R, k] of each."""
    above_RB = scores_RB > border_R1 + rounding_R1
    ties_RB = ~above_RB & ((scores_RB - border_R1).abs() <= rounding_R1)
    end = 1 + column_RB.max()
    key_RB = torch.where(above_RB, -1, torch.where(ties_RB, column_RB, end))
    place_RK = key_RB.sort(stable=True, dim=1).indices[:, :k]
    return scores_RB.gather(1, place_RK), column_RB.gather(1, place_RK)


def _ties(
    scorer: Scorer, queries: Tensor, seen: Sessions | None, border_R1: Tensor, rounding_R1: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Of all items that tie with the border the k with the lowest ids, and behind them -inf: scores and columns, [R, k]."""
    device = border_R1.device
    tiles = Tiles(scorer, min(TILE[device.type], scorer.num_items))
    histories = seen if seen is not None else _empty(len(queries), device)
    hidden = Hidden(tiles, histories, len(queries), seen=seen is not None)
    scores_RK = border_R1.new_full((len(queries), k), -torch.inf)
    column_RK = torch.full((len(queries), k), scorer.num_items, device=device)
    for tile, (first, last) in enumerate(tiles.spans):
        scores_RT = hidden.mask(scorer.tile(queries, first, last), tile, 0)
        ties_RT = (scores_RT - border_R1).abs() <= rounding_R1
        column_RT = torch.where(ties_RT, torch.arange(first, last, device=device), scorer.num_items)
        lowest_RK, place_RK = column_RT.topk(min(k, last - first), largest=False)
        score_RK = scores_RT.gather(1, place_RK).where(lowest_RK < scorer.num_items, -torch.inf)
        column_RK, place_RK = torch.cat([column_RK, lowest_RK], 1).topk(k, largest=False)
        scores_RK = torch.cat([scores_RK, score_RK], 1).gather(1, place_RK)
        if device.type == "cpu" and bool((column_RK < scorer.num_items).all()):
            break
    return scores_RK, column_RK.clamp(max=scorer.num_items - 1)


def _empty(num: int, device: torch.device) -> Sessions:
    nothing = torch.zeros(num, dtype=torch.long, device=device)
    return Sessions({}, nothing, nothing, nothing)


def lower_ids_first(scores_NK: Tensor, column_NK: Tensor, rounding_NK: Tensor) -> tuple[Tensor, Tensor]:
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
