"""What a GPU is asked to do with Polars' plans, through cudf-polars: each a function by itself, which a benchmark may time.

Nothing here is imported where there is no GPU but Polars.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import polars as pl

gpu_is_taken = Lock()  # one plan at a time has the memory of the device; other threads read and write meanwhile


def together(plans: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Plans side by side in one, whose optimiser finds what they share; the columns of plan N are called "N name"."""
    named = [plan.select(pl.all().name.prefix(f"{number} ")) for number, plan in enumerate(plans)]
    return pl.concat(named, how="horizontal_extend")


def translate(plans: Sequence[pl.LazyFrame], engine: pl.GPUEngine) -> list[Any]:
    """Plans as cudf-polars runs them; what they share is shared there.

    Raises:
        NotImplementedError: where a plan has what a GPU does not do.
    """
    from cudf_polars import Translator

    translator = Translator((plans[0] if len(plans) == 1 else together(plans))._ldf.visit(), engine)
    whole = translator.translate_ir()
    if (refused := translator.unsupported_operations_error()) is not None:
        raise refused
    sides = [whole] if len(plans) == 1 else list(whole.children)
    assert len(sides) == len(plans)
    return sides


def to_device(frame: pl.DataFrame, stream: Any) -> Any:
    """A frame of the host -> one of cudf-polars."""
    from cudf_polars.containers import DataFrame

    return DataFrame.from_polars(frame, stream=stream)


def evaluate(side: Any, cache: dict[int, tuple[object, int]], context: Any) -> Any:
    """A translated plan -> a frame of cudf-polars."""
    return side.evaluate(cache=cache, timer=None, context=context)


def from_device(frame: Any) -> pl.DataFrame:
    """A frame of cudf-polars -> one of the host."""
    made: pl.DataFrame = frame.to_polars()
    return made


@contextmanager
def memory_of(engine: pl.GPUEngine) -> Iterator[None]:
    """The device and the memory that an engine works with."""
    from cudf_polars.callback import set_device, set_memory_resource
    from cudf_polars.utils.config import ConfigOptions

    config = ConfigOptions.from_polars_engine(engine)
    with (
        set_device(config.device),
        set_memory_resource(engine.memory_resource, config.memory_resource_config, config.executor),
    ):
        yield
