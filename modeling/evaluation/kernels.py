"""What Triton compiles for ranks and lists on a GPU: each reads the scores of a tile once, while they are in the second cache.

N histories, R of them in a tile, V items of the catalogue, T items of a tile, G groups of 32 items, P pairs of a history and an
item; K values that are kept of a row of X.

What must not be ranked is a bit: word g of a history holds items 32 g .. 32 g + 31. So nothing is written into scores, no pair
is sorted, and the host is asked nothing. Triton comes with torch for GPUs and is imported here alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BITS = 32  # items of a group and of a word
COLUMNS = 1024  # read at a time, by four warps
WIDEST = 2**15  # values of a row that one program holds


def hidden_bits(pair_P2: Tensor, never_V: Tensor, num_rows: int) -> Tensor:
    """Which items are hidden of each history, int32 words of shape [N, V / 32]: pairs (history, column) and what `never_V` has.

    Columns outside the catalogue hide nothing; items behind its end are hidden.
    """
    num_items = len(never_V)
    num_words = -(-num_items // BITS)
    bit_B = torch.arange(BITS, device=never_V.device, dtype=torch.int32)
    never = torch.ones(num_words * BITS, dtype=torch.int32, device=never_V.device)
    never[:num_items] = never_V
    word_G = (never.view(num_words, BITS) << bit_B).sum(1, dtype=torch.int32)
    words_NG = word_G.repeat(num_rows, 1)
    if len(pair_P2):
        pair_P2 = pair_P2.contiguous()
        _mark[(triton.cdiv(len(pair_P2), 256),)](words_NG, pair_P2, len(pair_P2), num_items, num_words, SIZE=256)
    return words_NG


def count_better(
    scores_RT: Tensor, words_RG: Tensor, first: int, least_R: Tensor, most_R: Tensor, twice_R: Tensor
) -> None:
    """Add to `twice_R` (int32), of each row, the items above `most_R` and those that reach `least_R`, but for the hidden.

    `scores_RT` are those of the catalogue's items from `first` on, a whole multiple of 32.
    """
    rows, width = scores_RT.shape
    _count[(rows,)](
        scores_RT, words_RG, least_R, most_R, twice_R,
        width, scores_RT.stride(0), words_RG.stride(0), first // BITS, SIZE=COLUMNS,
    )  # fmt: skip


def group_maxima(scores_RT: Tensor, words_RG: Tensor, first: int, most_RG: Tensor) -> None:
    """The best score of each group of 32 items into `most_RG` of the whole catalogue; what is no number counts as infinite."""
    rows, width = scores_RT.shape
    _maxima[(rows, triton.cdiv(width, COLUMNS))](
        scores_RT, words_RG, most_RG,
        width, scores_RT.stride(0), words_RG.stride(0), most_RG.stride(0), first // BITS, SIZE=COLUMNS,
    )  # fmt: skip


def best_of_row(values_RX: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The K best values of each row and their places, of equal ones the first, in no order: exactly, float32 and int64 [R, K].

    X is at least K and at most `WIDEST`; nothing is infinite but -inf where there is nothing, or +inf, which comes first.
    """
    rows, width = values_RX.shape
    size = triton.next_power_of_2(width)
    best_RK, place_RK = (
        values_RX.new_empty(rows, count),
        torch.empty(rows, count, dtype=torch.long, device=values_RX.device),
    )
    warps = max(1, min(16, size // 1024))
    _select[(rows,)](values_RX, best_RK, place_RK, width, values_RX.stride(0), count, SIZE=size, num_warps=warps)
    return best_RK, place_RK


def open_groups(scores_RV: Tensor, words_RG: Tensor, group_RB: Tensor, num_items: int) -> Tensor:
    """The scores of the items of some groups of each row, [R, 32 B], -inf where one is hidden."""
    rows, count = group_RB.shape
    opened_RX = scores_RV.new_empty(rows, count * BITS)
    _open[(rows, triton.cdiv(count, 8))](
        scores_RV, words_RG, group_RB, opened_RX,
        count, num_items, scores_RV.stride(0), words_RG.stride(0), GROUPS=8,
    )  # fmt: skip
    return opened_RX


@triton.jit
def _mark(words, pairs, num_pairs, num_items, num_words, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    pair = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = pair < num_pairs
    row = tl.load(pairs + 2 * pair, mask=inside, other=0)
    column = tl.load(pairs + 2 * pair + 1, mask=inside, other=-1)
    inside = inside & (column >= 0) & (column < num_items)
    bit = tl.full((SIZE,), 1, tl.int32) << (column % 32).to(tl.int32)
    tl.atomic_or(words + row * num_words + column // 32, bit, mask=inside)


@triton.jit
def _shown(scores, words, row, width, score_stride, word_stride, first_word, start, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """SIZE scores of a row from column `start` on, by groups, and which of them are not hidden: [SIZE / 32, 32]."""
    group = tl.arange(0, SIZE // 32)
    bit = tl.arange(0, 32)
    column = start + group[:, None] * 32 + bit[None, :]
    inside = column < width
    score = tl.load(scores + row * score_stride + column, mask=inside, other=-float("inf"))
    word = tl.load(
        words + row * word_stride + first_word + start // 32 + group, mask=start + group * 32 < width, other=-1
    )
    shown = inside & (((word[:, None] >> bit[None, :]) & 1) == 0)
    return score, shown


@triton.jit
def _count(scores, words, least, most, twice, width, score_stride, word_stride, first_word, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    low = tl.load(least + row)
    high = tl.load(most + row)
    number = tl.zeros((SIZE // 32, 32), tl.int32)
    for start in range(0, width, SIZE):
        score, shown = _shown(scores, words, row, width, score_stride, word_stride, first_word, start, SIZE)
        number += (shown & (score > high)).to(tl.int32) + (shown & (score >= low)).to(tl.int32)
    total = tl.sum(tl.sum(number, 1), 0)
    tl.store(twice + row, tl.load(twice + row) + total)


@triton.jit
def _maxima(scores, words, maxima, width, score_stride, word_stride, maxima_stride, first_word, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * SIZE
    score, shown = _shown(scores, words, row, width, score_stride, word_stride, first_word, start, SIZE)
    score = tl.where(score != score, float("inf"), score)
    most = tl.max(tl.where(shown, score, -float("inf")), 1)
    group = start // 32 + tl.arange(0, SIZE // 32)
    tl.store(maxima + row * maxima_stride + first_word + group, most, mask=group * 32 < width)


@triton.jit
def _open(scores, words, groups, opened, count, num_items, score_stride, word_stride, GROUPS: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    inside = place < count
    group = tl.load(groups + row * count + place, mask=inside, other=0)
    word = tl.load(words + row * word_stride + group, mask=inside, other=-1)
    bit = tl.arange(0, 32)
    column = group[:, None] * 32 + bit[None, :]
    shown = (column < num_items) & (((word[:, None] >> bit[None, :]) & 1) == 0)
    score = tl.load(scores + row * score_stride + column, mask=shown, other=-float("inf"))
    score = tl.where(score != score, float("inf"), score)
    to = opened + row * count * 32 + place[:, None] * 32 + bit[None, :]
    tl.store(to, score, mask=inside[:, None] & (bit[None, :] >= 0))


@triton.jit
def _select(values, best, places, width, stride, count, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """The threshold is found bit by bit: floats are in the order of integers whose lower bits are turned where they are < 0."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, SIZE)
    inside = column < width
    value = tl.load(values + row * stride + column, mask=inside, other=-float("inf"))
    bits = value.to(tl.int32, bitcast=True)
    key = tl.where(inside, bits ^ ((bits >> 31) & 0x7FFFFFFF), -2147483648)
    limit = tl.where(tl.sum((key >= 0).to(tl.int32), 0) >= count, 0, -2147483648)
    for step in range(31):
        higher = limit + (tl.full((), 1, tl.int32) << (30 - step))
        limit = tl.where(tl.sum((key >= higher).to(tl.int32), 0) >= count, higher, limit)
    above = key > limit
    equal = key == limit
    before = tl.sum(above.to(tl.int32), 0)
    to = tl.where(above, tl.cumsum(above.to(tl.int32), 0) - 1, before + tl.cumsum(equal.to(tl.int32), 0) - 1)
    kept = (above | equal) & (to < count)
    tl.store(best + row * count + to, value, mask=kept)
    tl.store(places + row * count + to, column.to(tl.int64), mask=kept)
