"""Frames: the one place that runs Polars plans, on the CPU or, the same plans, on a GPU; and that writes Parquet.

Plans over rows keep to filter, sort, global shift, cum_sum, group_by and joins, which cuDF also takes. Small tables
(vocabularies, statistics, counts) are always worked on by the CPU.

Rows that several plans go over stay on a GPU between them (`Held`): they are copied there once, column by column as plans ask
for them, and what `keep` makes of them is not copied back.

device.py   what a GPU does with plans        held.py   rows that stay there        trip.py   several plans in one trip
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from preprocessing.frames.device import gpu_is_taken, together
from preprocessing.frames.held import Held, needs_device
from preprocessing.frames.trip import run_on_gpu

__all__ = [
    "CPU",
    "Held",
    "Rows",
    "Target",
    "collect",
    "collect_all",
    "collect_and_keep",
    "keep",
    "on",
    "run",
    "to_host",
    "together",
    "write",
]
CPU: Literal["in-memory"] = "in-memory"
Target = Literal["in-memory"] | pl.GPUEngine
Rows = pl.DataFrame | Held


def on(target: Target, frame: pl.DataFrame) -> Rows:
    """A frame of the host for several plans on a target: on a GPU its columns are copied once, when a plan first needs them."""
    return Held(frame.schema, frame.height, target, host=frame) if isinstance(target, pl.GPUEngine) else frame


def to_host(rows: Rows) -> pl.DataFrame:
    """Rows as a frame of the host."""
    return rows.to_host() if isinstance(rows, Held) else rows


def collect(plan: pl.LazyFrame, target: Target = CPU) -> pl.DataFrame:
    """A plan -> the frame it gives. On a GPU, a plan that cannot run there is an error, never a quiet return to the CPU."""
    return to_host(run([plan], target)[0])


def collect_all(plans: Sequence[pl.LazyFrame], target: Target = CPU) -> list[pl.DataFrame]:
    """Plans -> the frame each gives, in their order; what several have in common is made once, on a GPU too."""
    return [to_host(rows) for rows in run(plans, target)]


def keep(plan: pl.LazyFrame, target: Target) -> Rows:
    """A plan -> the rows it gives, which stay where it runs."""
    return run([plan], target, stays=0)[0]


def collect_and_keep(
    plans: Sequence[pl.LazyFrame], kept: pl.LazyFrame, target: Target
) -> tuple[list[pl.DataFrame], Rows]:
    """Plans -> the frame each gives, and the rows of one more plan, which stay where it runs."""
    *frames, rows = run([*plans, kept], target, stays=len(plans))
    return [to_host(frame) for frame in frames], rows


def run(plans: Sequence[pl.LazyFrame], target: Target, stays: int | None = None) -> list[Rows]:
    """Where every plan ends up, one call a trip; tests put a function of their own in its place to look at plans.

    `stays` is the number of the plan whose rows stay on a GPU.
    """
    if isinstance(target, pl.GPUEngine):
        with gpu_is_taken:
            return run_on_gpu(plans, target, stays)
    assert not any(map(needs_device, plans)), "a plan over rows that only a GPU holds was sent to the CPU"
    if len(plans) == 1:
        return [plan.collect(engine=target) for plan in plans]
    return list(pl.collect_all(list(plans), engine=target))


def write(table: pl.DataFrame, file: Path) -> None:
    """Write a table to a file, and make the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Level 3 saves 4-9 % of the bytes for a quarter more of the writing time.
    table.write_parquet(file, compression="zstd", compression_level=1)
