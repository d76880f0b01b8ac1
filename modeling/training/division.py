"""The part of a batch that one of several processes reads.

Every process makes the batch that one alone would make and keeps its own rows of it, or of a flat row its own sessions. So the
batches of a run do not depend on the number of processes, nor does any of what an objective draws; and each process knows the
sums that losses are divided by without asking the rest.

B rows, L places, T = B * L, N predictions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modeling.batches import Batch, Part, listed
from modeling.draws import Rows

NOTHING = {"segments_BL": 0, "positions_BL": 0, "order_BL": 0, "event_BL": -1, "from_end_BL": 0}  # at places of padding


def part_of(batch: Batch, rank: int, count: int, draws: torch.Generator | None = None) -> Batch:
    """What process `rank` of `count` reads of a batch; the parts of all processes hold each session and prediction once.

    The weights of predictions are those of the whole batch. `draws`, on a CPU, is a generator in the same state at every
    process, from which a loss draws what it draws for the whole batch. A process for which there is no row gets one of
    padding. Nothing asks a GPU for a value or the size of a result.
    """
    layout = batch.layout
    num_rows, width = layout.segments_BL.shape
    if layout.block is not None:
        return _sessions_of_flat_row(batch, rank, count)
    first, last = num_rows * rank // count, num_rows * (rank + 1) // count
    rows = None if draws is None else Rows(first, num_rows, draws)
    if first == last:
        rows = None if draws is None else Rows(0, num_rows, draws)
        return _cut(batch, 0, width, width, torch.zeros_like(layout.inside_BL[0]), rows)
    return _cut(batch, first * width, (last - first) * width, width, None, rows)


def _sessions_of_flat_row(batch: Batch, rank: int, count: int) -> Batch:
    """The sessions that begin in one of `count` equal pieces of the row, and as much of the row as they can take."""
    layout = batch.layout
    width, block = layout.segments_BL.shape[1], layout.block
    assert block is not None and layout.longest is not None
    begin, end = width * rank // count, width * (rank + 1) // count
    size = min(-(-(end - begin + layout.longest) // block) * block, width)
    first = min(begin, width - size)
    start_T = (
        torch.arange(first, first + size, device=layout.segments_BL.device)
        - layout.positions_BL[0, first : first + size]
    )
    return _cut(batch, first, size, size, (start_T >= begin) & (start_T < end), None)


def _cut(batch: Batch, first: int, size: int, width: int, own_T: Tensor | None, rows: Rows | None) -> Batch:
    """The places first .. first + size - 1, counted row by row, in rows of `width`; `own_T`: which are read (None: all)."""

    def places(name: str, values_BL: Tensor) -> Tensor:
        cut_BL = values_BL.flatten(0, 1)[first : first + size]
        if own_T is not None:
            cut_BL = cut_BL.masked_fill(~own_T.reshape(-1, *[1] * (cut_BL.dim() - 1)), NOTHING.get(name, 0))
        return cut_BL.unflatten(0, (-1, width))

    layout = batch.layout
    by_place: dict[str, Any] = {
        name: places(name, values)
        for name in NOTHING
        if (values := getattr(layout, name)) is not None and values.numel()
    }
    part_layout = replace(
        layout,
        **by_place,
        end_S=layout.end_S[:0],
        most=None if layout.most is None else min(layout.most, size),
    )
    cut = replace(
        batch,
        layout=part_layout,
        features={name: places(name, values) for name, values in batch.features.items()},
        masked_BL=places("masked_BL", batch.masked_BL),
    )
    return _predictions(cut, batch, first, size, own_T, rows)


def _predictions(cut: Batch, whole: Batch, first: int, size: int, own_T: Tensor | None, rows: Rows | None) -> Batch:
    """The predictions asked at the places of a part. Without `own_T` on a CPU, they follow one another in the whole batch."""
    place_N = whole.asked_N - first
    own_N = (place_N >= 0) & (place_N < size) & (whole.weight_N > 0)
    if own_T is not None:
        own_N &= own_T[place_N.clamp(0, size - 1)]
    known_size = whole.layout.most is None and own_T is None and bool(own_N.any())  # to the host
    number_N, real_N = listed(own_N, None if known_size else min(len(own_N), size))
    return replace(
        cut,
        asked_N=torch.where(real_N, place_N[number_N], 0),
        target_N=torch.where(real_N, whole.target_N[number_N], 0),
        weight_N=whole.weight_N[number_N] * real_N,
        is_last_N=whole.is_last_N[number_N] & real_N,
        labels={name: torch.where(real_N, values_N[number_N], torch.nan) for name, values_N in whole.labels.items()},
        part=Part(whole, int(number_N[0]) if known_size else 0, rows),
    )
