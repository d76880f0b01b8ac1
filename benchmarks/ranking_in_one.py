"""What ranks would cost if the kernel that multiplies counted too, so that no score leaves it: tried on a GPU, not used.

Triton's products of float32 are exact (`ieee`) or sums of three products of tensor cores (`tf32x3`), whose rounding is another.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

SIZES = [  # precision, histories and items of a tile, warps, stages
    ("tf32x3", 128, 128, 8, 2),
    ("tf32x3", 128, 128, 4, 2),
    ("tf32x3", 128, 64, 4, 3),
    ("ieee", 128, 128, 8, 2),
    ("ieee", 128, 64, 4, 3),
]
SPAN = 8192  # items of a program


def ways(queries_NE: torch.Tensor, items_VE: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """By name, functions that give the number of items above a limit for each query, int32 of shape [N]."""
    limit_N = (queries_NE * items_VE[:1]).sum(1)

    def by(precision: str, rows: int, items: int, warps: int, stages: int) -> Callable[[], torch.Tensor]:
        def count() -> torch.Tensor:
            number_N = torch.zeros(len(queries_NE), dtype=torch.int32, device=queries_NE.device)
            grid = (triton.cdiv(len(queries_NE), rows), triton.cdiv(len(items_VE), SPAN))
            _count[grid](
                queries_NE, items_VE, limit_N, number_N, len(queries_NE), len(items_VE),
                ROWS=rows, ITEMS=items, WIDTH=queries_NE.shape[1], STEP=32, SPAN=SPAN, PRECISION=precision,
                num_warps=warps, num_stages=stages,
            )  # fmt: skip
            return number_N

        return count

    return {f"in one, {size[0]} {size[1]}x{size[2]}, {size[3]} warps": by(*size) for size in SIZES}


@triton.jit
def _count(  # type: ignore[no-untyped-def]
    queries, items, limits, numbers, num_rows, num_items,
    ROWS: tl.constexpr, ITEMS: tl.constexpr, WIDTH: tl.constexpr, STEP: tl.constexpr, SPAN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    begin = tl.program_id(1) * SPAN
    limit = tl.load(limits + row, mask=row < num_rows, other=float("inf"))
    number = tl.zeros((ROWS,), tl.int32)
    step = tl.arange(0, STEP)
    for start in range(begin, begin + SPAN, ITEMS):
        column = start + tl.arange(0, ITEMS)
        scores = tl.zeros((ROWS, ITEMS), tl.float32)
        for first in range(0, WIDTH, STEP):
            query = tl.load(
                queries + row[:, None] * WIDTH + first + step[None, :], mask=row[:, None] < num_rows, other=0.0
            )
            item = tl.load(
                items + column[None, :] * WIDTH + first + step[:, None], mask=column[None, :] < num_items, other=0.0
            )
            scores = tl.dot(query, item, scores, input_precision=PRECISION)
        above = (scores > limit[:, None]) & (column[None, :] < num_items)
        number += tl.sum(above.to(tl.int32), 1)
    tl.atomic_add(numbers + row, number, mask=row < num_rows)
