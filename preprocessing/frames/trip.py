"""Plans on a GPU, several in one trip."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from preprocessing.frames import device
from preprocessing.frames.held import Held, with_held


def run_on_gpu(plans: Sequence[pl.LazyFrame], engine: pl.GPUEngine, stays: int | None) -> list[pl.DataFrame | Held]:
    """One trip: what plans share is made once and never leaves the device.

    Polars' `collect_all` does not know cudf-polars, so the translation of the plans side by side is evaluated here, each side
    by itself: whole, the shorter ones would be filled up with null to the length of the longest.
    """
    if not plans:
        return []
    from cudf_polars.dsl.ir import IRExecutionContext

    sides, alone = device.translate(plans, engine), len(plans) == 1
    cache: dict[int, tuple[object, int]] = {}
    made: list[pl.DataFrame | Held] = []
    with device.memory_of(engine):
        context = IRExecutionContext()
        for number, side in enumerate(with_held(sides)):
            frame = device.evaluate(side, cache, context)
            prefix = "" if alone else f"{number} "
            named = {name: name.removeprefix(prefix) for name in frame.column_names}
            if number == stays:
                columns = {new: frame.column_map[name].rename(new) for name, new in named.items()}
                schema = pl.Schema({name: column.dtype.polars_type for name, column in columns.items()})
                made.append(Held(schema, frame.num_rows, engine, device=columns, stream=frame.stream))
            else:
                made.append(device.from_device(frame).rename(named))
            del frame
        cache.clear()
    return made
