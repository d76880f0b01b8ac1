"""Ranks and lists on a GPU: a product makes the scores of a tile, one kernel reads them before the next tile replaces them.

N histories of a chunk, R of them taken at a time, V items of the catalogue, T items of a tile, G groups of 32 items, P pairs of
a history and an item that must not be ranked, B items that are kept.

Ranks count while the scores of a tile are there. Lists keep the scores of R histories and the maximum of each group of items;
the best B groups hold the best B items, which are looked for in these alone. Nothing is asked of the device.
"""

from __future__ import annotations

import contextlib
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from modeling.evaluation.scorer import Scorer, Tiles

# Of the tiles tried on an H200 (benchmarks/gpu.md) the largest is the fastest: what fits its second cache (4096 x 2048) takes
# a fifth longer, since a tile is a few launches of about 10 microseconds.
ROWS, TILE = 8192, 16384
HELD = 2**29  # scores that lists keep, 2 GB
SPARE = 16  # kept behind the k-th, for items that tie with it
LONGEST = 1000  # of lists that are made like this


def takes(device: torch.device) -> bool:
    """Whether the kernels are there for tensors of a device: a GPU, Triton, and what Triton needs to compile."""
    return device.type == "cuda" and torch.backends.cuda.is_built() and _compiles()


@cache
def _compiles() -> bool:
    try:
        from modeling.evaluation import kernels

        values_RX = torch.rand(3, 70, device="cuda")
        best_RK, _ = kernels.best_of_row(values_RX, 5)
        works = bool((best_RK.sort(descending=True).values == values_RX.topk(5).values).all())
    except Exception as error:  # Triton is missing or broken, or a C compiler is: whatever that raises
        reason = " ".join(str(error).split())[:200]
        warnings.warn(
            f"Ranks and lists take torch's own operations, two to three times as long: Triton cannot be used "
            f"({type(error).__name__}: {reason}).",
            stacklevel=2,
        )
        return False
    return works


@cache
def tile_of(rows: int) -> int:
    """T for lists of so many histories: whole blocks of as many scores as a tile of ranks."""
    return max(1024, ROWS * TILE // max(rows, 1) // 1024 * 1024)


def above(scorer: Scorer, tiles: Tiles, queries: Tensor, pair_P2: Tensor, least_N1: Tensor, most_N1: Tensor) -> Tensor:
    """How many items score above `most_N1`, and half of those that reach `least_N1` alone, float64 of shape [N].

    `pair_P2` are (history, column) that do not count; items that may not be ranked do not, either.
    """
    from modeling.evaluation import kernels

    with _on(queries.device):
        words_NG = kernels.hidden_bits(pair_P2, ~scorer.rankable_V, len(queries))
        twice_N = torch.zeros(len(queries), dtype=torch.int32, device=queries.device)
        room = queries.new_empty(min(ROWS, len(queries)) * tiles.size)
        limits = least_N1.flatten().contiguous(), most_N1.flatten().contiguous()
        parts = list(zip(*(of_N.split(ROWS) for of_N in (queries, words_NG, *limits, twice_N)), strict=True))
        for first, last in tiles.spans:
            for some, words_RG, least_R, most_R, twice_R in parts:
                out = room[: len(some) * (last - first)].view(len(some), last - first)
                scores_RT = scorer.tile(some, first, last, out=out)
                kernels.count_better(scores_RT, words_RG, first, least_R, most_R, twice_R)
        return 0.5 * twice_N.double()


def best(scorer: Scorer, tiles: Tiles, queries: Tensor, pair_P2: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best k items and a few more, best first, their columns, the score above which none is missing: [N, B] twice, [N].

    A row with a score that is no number or infinite begins with infinity. Behind the last item to rank are -inf.
    """
    from modeling.evaluation import kernels

    num_items, count = scorer.num_items, min(k + SPARE, scorer.num_items)
    with _on(queries.device):
        words_NG = kernels.hidden_bits(pair_P2, ~scorer.rankable_V, len(queries))
        rows = rows_of(num_items, len(queries))
        room = queries.new_empty(rows, -(-num_items // 64) * 64)
        parts = [
            _best(scorer, tiles, some, words_RG, room[: len(some), :num_items], count)
            for some, words_RG in zip(queries.split(rows), words_NG.split(rows), strict=True)
        ]
    scores_NB, columns_NB = (torch.cat(of) for of in zip(*parts, strict=True))
    scores_NB, place_NB = scores_NB.sort(1, descending=True)
    least_N = scores_NB[:, -1] if count < num_items else scores_NB.new_full((len(queries),), -torch.inf)
    return scores_NB, columns_NB.gather(1, place_NB), least_N


def rows_of(num_items: int, most: int) -> int:
    """R for lists: histories whose scores are kept at a time."""
    rows = max(1, HELD // max(num_items, 1))
    return min(rows // 256 * 256 or rows, max(most, 1))


def _best(
    scorer: Scorer, tiles: Tiles, queries: Tensor, words_RG: Tensor, scores_RV: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """The best of some rows, in no order: scores and columns, [R, B]."""
    from modeling.evaluation import kernels

    num_items, num_groups = scorer.num_items, words_RG.shape[1]
    most_RG = queries.new_full(words_RG.shape, -torch.inf)
    for first, last in tiles.spans:
        scores_RT = scorer.tile(queries, first, last, out=scores_RV[:, first:last])
        kernels.group_maxima(scores_RT, words_RG, first, most_RG)
    if num_groups <= count:
        group_RB = torch.arange(num_groups, device=queries.device).repeat(len(queries), 1)
    elif num_groups <= kernels.WIDEST:
        group_RB = kernels.best_of_row(most_RG, count)[1]
    else:
        group_RB = most_RG.topk(count, sorted=False).indices
    opened_RX = kernels.open_groups(scores_RV, words_RG, group_RB, num_items)
    best_RB, place_RB = kernels.best_of_row(opened_RX, count)
    column_RB = group_RB.gather(1, place_RB // kernels.BITS) * kernels.BITS + place_RB % kernels.BITS
    return best_RB, column_RB.clamp(max=num_items - 1)


def _on(device: torch.device) -> Any:
    """Triton starts kernels on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
