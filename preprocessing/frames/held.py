"""Rows in the memory of a GPU, and the plans over them.

A plan cannot name what only a device holds. So a frame of the host stands for the rows in it, marked by a column whose name
says which rows are meant; once the plan is translated, what reads that frame is replaced by a node that gives the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import polars as pl

from preprocessing.frames import device

MARK = "rows on the GPU"  # begins the name of a column that says of which rows a frame is: no column of events is called so
_numbers = count()
_held: WeakValueDictionary[str, Held] = WeakValueDictionary()


class Held:
    """Rows in the memory of a GPU, for plans that run there.

    In a plan a frame stands for them that has one more column, by whose name the rows are found. Of rows that the host holds,
    too, it is the host's frame; else a frame of the same columns and no rows of these, which the CPU refuses to work on.
    """

    def __init__(
        self,
        schema: pl.Schema,
        height: int,
        engine: pl.GPUEngine,
        host: pl.DataFrame | None = None,
        device: Mapping[str, Any] | None = None,
        stream: Any = None,
    ) -> None:
        """`device` are the columns that are there already, as cudf-polars has them, valid on `stream`."""
        self.schema, self.height = schema, height
        self._engine, self._host, self._device, self._stream = engine, host, dict(device or {}), stream
        mark = f"{MARK} {next(_numbers)}"
        there = host if host is not None else pl.DataFrame(schema=schema).clear(2)  # of one row, columns are in order
        self._leaf = pl.DataFrame({mark: pl.repeat(None, there.height, dtype=pl.Null, eager=True)}).hstack(there)
        _held[mark] = self

    @property
    def columns(self) -> list[str]:
        """The names of their columns."""
        return self.schema.names()

    @property
    def on_host(self) -> bool:
        """Whether the host has them, too."""
        return self._host is not None

    def lazy(self) -> pl.LazyFrame:
        """A plan for them that runs where they are."""
        return self._leaf.lazy().select(self.columns)

    def to_host(self) -> pl.DataFrame:
        """Their frame on the host: copied, unless it is there."""
        if self._host is not None:
            return self._host
        with device.gpu_is_taken, device.memory_of(self._engine):
            return device.from_device(self._frame(self.columns, None))

    def columns_of(self, names: Sequence[str], context: Any) -> Any:
        """Some columns as cudf-polars has frames; those that are not on the device yet are copied there."""
        lacking = [name for name in names if name not in self._device]
        if lacking:
            assert self._host is not None
            self._stream = self._stream if self._stream is not None else context.get_cuda_stream()
            self._device |= device.to_device(self._host.select(lacking), self._stream).column_map
        return self._frame(names, context)

    def _frame(self, names: Sequence[str], context: Any) -> Any:
        from cudf_polars.containers import DataFrame

        stream = self._stream if self._stream is not None else context.get_cuda_stream()
        return DataFrame([self._device[name].copy() for name in names], stream=stream, num_rows=self.height)


def needs_device(plan: pl.LazyFrame) -> bool:
    """Whether a plan is over rows that only a GPU holds."""
    # A list of all at once: other threads make some meanwhile.
    marks = [ref.key for ref in _held.valuerefs() if (held := ref()) is not None and not held.on_host]
    words = plan.explain(optimized=False) if marks else ""
    return any(f'"{mark}"' in words for mark in marks)


def with_held(nodes: Sequence[Any]) -> list[Any]:
    """Nodes of translated plans in which what stands for held rows is replaced by these.

    cudf-polars takes nodes that say the same for equal, so it is looked at which they are, not at what they say.
    """
    seen: dict[int, Any] = {}

    def placed(node: Any) -> Any:
        if id(node) not in seen:
            seen[id(node)] = node
            if (held := _stands_for(node)) is not None:
                seen[id(node)] = _Leaf(held, [name for name in node.schema if not name.startswith(MARK)])
            else:
                node.children = tuple(map(placed, node.children))
        return seen[id(node)]

    return [placed(node) for node in nodes]


class _Leaf:
    """Held rows in the place of the frame that stands for them in a translated plan."""

    children = ()

    def __init__(self, held: Held, names: Sequence[str]) -> None:
        self.held, self.names = held, names

    def evaluate(self, *, cache: Any, timer: Any, context: Any) -> Any:
        return self.held.columns_of(self.names, context)


def _stands_for(node: Any) -> Held | None:
    if type(node).__name__ != "DataFrameScan":
        return None
    return _held.get(pl.DataFrame._from_pydf(node.df).columns[0]) if node.df.width() else None
