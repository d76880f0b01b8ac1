"""Frames: the one place that runs Polars plans, on the CPU or, the same plans, on a GPU; and that writes Parquet.

Plans over rows keep to filter, sort, global shift, cum_sum, group_by and joins, which cuDF also takes. Small tables
(vocabularies, statistics, counts) are always worked on by the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Literal

import polars as pl

CPU: Literal["in-memory"] = "in-memory"
Target = Literal["in-memory"] | pl.GPUEngine
_gpu_is_taken = Lock()  # one plan at a time has the memory of the device; other threads read and write meanwhile


def collect(plan: pl.LazyFrame, target: Target = CPU) -> pl.DataFrame:
    """A plan -> the frame it gives. On a GPU, a plan that cannot run there is an error, never a quiet return to the CPU."""
    return run([plan], target)[0]


def collect_all(plans: Sequence[pl.LazyFrame], target: Target = CPU) -> list[pl.DataFrame]:
    """Plans -> the frame each gives, in their order; what several have in common is made once, on a GPU too."""
    return run(plans, target)


def run(plans: Sequence[pl.LazyFrame], target: Target) -> list[pl.DataFrame]:
    """Where every plan ends up, one call a trip; tests put a function of their own in its place to look at plans."""
    if isinstance(target, pl.GPUEngine):
        with _gpu_is_taken:
            return _run_on_gpu(plans, target)
    if len(plans) == 1:
        return [plan.collect(engine=target) for plan in plans]
    return pl.collect_all(list(plans), engine=target)


def together(plans: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Plans side by side in one, whose optimiser finds what they share; the columns of plan N are called "N name"."""
    named = [plan.select(pl.all().name.prefix(f"{number} ")) for number, plan in enumerate(plans)]
    return pl.concat(named, how="horizontal_extend")


def _run_on_gpu(plans: Sequence[pl.LazyFrame], engine: pl.GPUEngine) -> list[pl.DataFrame]:
    """One trip: rows go to the device once and results come back; what plans share never leaves it.

    Polars' `collect_all` does not know cudf-polars, so the translation of the plans side by side is evaluated here, each side
    by itself: whole, the shorter ones would be filled up with null to the length of the longest.
    """
    if len(plans) < 2:
        return [plan.collect(engine=engine) for plan in plans]
    from cudf_polars import Translator
    from cudf_polars.callback import set_device, set_memory_resource
    from cudf_polars.dsl.ir import IRExecutionContext

    translator = Translator(together(plans)._ldf.visit(), engine)
    whole, config = translator.translate_ir(), translator.config_options
    if (refused := translator.unsupported_operations_error()) is not None:
        raise refused
    assert len(whole.children) == len(plans)
    cache: dict[int, tuple[object, int]] = {}
    frames = []
    with (
        set_device(config.device),
        set_memory_resource(engine.memory_resource, config.memory_resource_config, config.executor),
    ):
        context = IRExecutionContext()
        for number, side in enumerate(whole.children):
            frame = side.evaluate(cache=cache, timer=None, context=context).to_polars()
            frames.append(frame.rename(lambda name, prefix=f"{number} ": name.removeprefix(prefix)))
        cache.clear()
    return frames


def write(table: pl.DataFrame, file: Path) -> None:
    """Write a table to a file, and make the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Level 3 saves 4-9 % of the bytes for a quarter more of the writing time.
    table.write_parquet(file, compression="zstd", compression_level=1)
