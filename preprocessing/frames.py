"""Frames: the one place that runs Polars plans, on the CPU or, the same plans, on a GPU; and that writes Parquet.

Plans over rows keep to filter, sort, global shift, cum_sum, group_by and joins, which cuDF also takes. Small tables
(vocabularies, statistics, counts) are always worked on by the CPU.

Rows that several plans go over stay on a GPU between them (`Held`): they are copied there once, column by column as plans ask
for them, and what `keep` makes of them is not copied back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, Literal
from weakref import WeakValueDictionary

import polars as pl

CPU: Literal["in-memory"] = "in-memory"
Target = Literal["in-memory"] | pl.GPUEngine
MARK = "rows on the GPU"  # begins the name of a column that says of which rows a frame is: no column of events is called so
PARQUET_ON_GPU = False  # see benchmarks/gpu.md
_gpu_is_taken = Lock()  # one plan at a time has the memory of the device; other threads read and write meanwhile
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
        with _gpu_is_taken, _memory_of(self._engine):
            return from_device(self._frame(self.columns, None))

    def writes_parquet(self) -> bool:
        """Whether Parquet of lists of their values is packed by the GPU: where it was found to be faster, and can be."""
        plain = not any(dtype.is_nested() or dtype == pl.Null for dtype in self.schema.dtypes())
        return PARQUET_ON_GPU and bool(self._device) and plain

    def write_lists(self, table: pl.DataFrame, offsets: pl.Series, files: Sequence[tuple[Path, int, int]]) -> None:
        """Write rows of a table with lists of these values, from one offset to the next, as Parquet.

        `files` are paths, each with its first row and its number of rows. Without dictionaries, which lists of ids hardly
        repeat in.
        """
        import pylibcudf as plc
        from pylibcudf.io import parquet, types

        with _gpu_is_taken, _memory_of(self._engine):
            columns = {name: column.obj for name, column in to_device(table, self._stream).column_map.items()}
            begins = to_device(offsets.to_frame(), self._stream).columns[0].obj
            for name in self.columns:
                children = [begins, self._device[name].obj]
                columns[name] = plc.Column(plc.DataType(plc.TypeId.LIST), table.height, None, None, 0, 0, children)
            bounds = [bound for _, first, number in files for bound in (first, first + number)]
            parts = plc.copying.slice(plc.Table(list(columns.values())), bounds, stream=self._stream)
            for (file, _, _), part in zip(files, parts, strict=True):
                names = types.TableInputMetadata(part)
                for number, name in enumerate(columns):
                    names.column_metadata[number].set_name(name)
                    if name in self.columns:
                        names.column_metadata[number].child(1).set_name("element")
                options = parquet.ParquetWriterOptions.builder(types.SinkInfo([str(file)]), part).metadata(names)
                options = options.compression(types.CompressionType.ZSTD).utc_timestamps(True)
                options = options.dictionary_policy(types.DictionaryPolicy.NEVER)
                parquet.write_parquet(options.build(), self._stream)

    def columns_of(self, names: Sequence[str], context: Any) -> Any:
        """Some columns as cudf-polars has frames; those that are not on the device yet are copied there."""
        lacking = [name for name in names if name not in self._device]
        if lacking:
            assert self._host is not None
            self._stream = self._stream if self._stream is not None else context.get_cuda_stream()
            self._device |= to_device(self._host.select(lacking), self._stream).column_map
        return self._frame(names, context)

    def _frame(self, names: Sequence[str], context: Any) -> Any:
        from cudf_polars.containers import DataFrame

        stream = self._stream if self._stream is not None else context.get_cuda_stream()
        return DataFrame([self._device[name].copy() for name in names], stream=stream, num_rows=self.height)


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
        with _gpu_is_taken:
            return _run_on_gpu(plans, target, stays)
    assert not any(map(_needs_device, plans)), "a plan over rows that only a GPU holds was sent to the CPU"
    if len(plans) == 1:
        return [plan.collect(engine=target) for plan in plans]
    return list(pl.collect_all(list(plans), engine=target))


def _needs_device(plan: pl.LazyFrame) -> bool:
    # A list of all at once: other threads make some meanwhile.
    marks = [ref.key for ref in _held.valuerefs() if (held := ref()) is not None and not held.on_host]
    words = plan.explain(optimized=False) if marks else ""
    return any(f'"{mark}"' in words for mark in marks)


def together(plans: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Plans side by side in one, whose optimiser finds what they share; the columns of plan N are called "N name"."""
    named = [plan.select(pl.all().name.prefix(f"{number} ")) for number, plan in enumerate(plans)]
    return pl.concat(named, how="horizontal_extend")


def _run_on_gpu(plans: Sequence[pl.LazyFrame], engine: pl.GPUEngine, stays: int | None) -> list[Rows]:
    """One trip: what plans share is made once and never leaves the device.

    Polars' `collect_all` does not know cudf-polars, so the translation of the plans side by side is evaluated here, each side
    by itself: whole, the shorter ones would be filled up with null to the length of the longest.
    """
    if not plans:
        return []
    from cudf_polars.dsl.ir import IRExecutionContext

    sides, alone = translate(plans, engine), len(plans) == 1
    cache: dict[int, tuple[object, int]] = {}
    made: list[Rows] = []
    with _memory_of(engine):
        context = IRExecutionContext()
        for number, side in enumerate(with_held(sides)):
            frame = evaluate(side, cache, context)
            prefix = "" if alone else f"{number} "
            named = {name: name.removeprefix(prefix) for name in frame.column_names}
            if number == stays:
                device = {new: frame.column_map[name].rename(new) for name, new in named.items()}
                schema = pl.Schema({name: column.dtype.polars_type for name, column in device.items()})
                made.append(Held(schema, frame.num_rows, engine, device=device, stream=frame.stream))
            else:
                made.append(from_device(frame).rename(named))
            del frame
        cache.clear()
    return made


# Where time may go, each a function by itself, so that a benchmark can say where it does.


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
def _memory_of(engine: pl.GPUEngine) -> Iterator[None]:
    """The device and the memory that an engine works with."""
    from cudf_polars.callback import set_device, set_memory_resource
    from cudf_polars.utils.config import ConfigOptions

    config = ConfigOptions.from_polars_engine(engine)
    with (
        set_device(config.device),
        set_memory_resource(engine.memory_resource, config.memory_resource_config, config.executor),
    ):
        yield


class _Leaf:
    """Held rows in the place of the frame that stands for them in a translated plan."""

    children = ()

    def __init__(self, held: Held, names: Sequence[str]) -> None:
        self.held, self.names = held, names

    def evaluate(self, *, cache: Any, timer: Any, context: Any) -> Any:
        return self.held.columns_of(self.names, context)


def with_held(nodes: Sequence[Any]) -> list[Any]:
    """Nodes of translated plans in which what stands for held rows is replaced by these.

    cudf-polars takes nodes that say the same for equal, so they are told apart by what they are, not by what they say.
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


def _stands_for(node: Any) -> Held | None:
    if type(node).__name__ != "DataFrameScan":
        return None
    return _held.get(pl.DataFrame._from_pydf(node.df).columns[0]) if node.df.width() else None


def write(table: pl.DataFrame, file: Path) -> None:
    """Write a table to a file, and make the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Level 3 saves 4-9 % of the bytes for a quarter more of the writing time.
    table.write_parquet(file, compression="zstd", compression_level=1)
