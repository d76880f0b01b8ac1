"""NVTabular for the features: its Workflows count, measure and encode them. Rows are cleaned and cut by Polars, as always.

Every day has a Workflow of its own. To learn, it is fit on the day's rows, and what it found becomes the table the encoders
themselves would give. To encode, its operators are given what the day may know: nothing is fit twice, and no Workflow is ever
stored. pandas does the work, or cuDF where merlin finds a GPU (not tried yet).

What NVTabular has no operator for stays with Polars, and so does what its operators stumble over: lists, values that are
neither text nor integers, columns that are null on a whole day, days that know nothing yet. The result is the same.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, reduce
from operator import add, rshift
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import polars as pl
import polars.selectors as cs
import pyarrow as pa

from preprocessing.encoders import LARGEST, Encoder, finite
from preprocessing.encoders.bucketise import Bucketise
from preprocessing.encoders.category import Category
from preprocessing.encoders.clip import Clip
from preprocessing.encoders.fill import Fill
from preprocessing.encoders.log1p import Log1p
from preprocessing.encoders.min_max import MinMax
from preprocessing.encoders.standardise import Standardise
from preprocessing.engines.polars import PolarsEngine
from preprocessing.features.chains import Fitted, as_stored
from preprocessing.vocabulary import ADMITTED
from schemas.columns import COUNT, DAY, ID, UNKNOWN, VALUE
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

INSTALL = (
    "Install it: pip install 'overnight[nvtabular]', then "
    "pip install --no-deps nvtabular==23.8.0 merlin-core==23.8.0 merlin-dataloader==23.8.0"
)
ROW = "row number"  # no feature is called so
TOO_LARGE = (pl.UInt64, pl.Int128, pl.UInt128)


class NVTabularEngine(PolarsEngine):
    """Learns and encodes with NVTabular, runs everything else with Polars on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        load()

    def learn(self, rows: pl.DataFrame, pending: list[Fitted]) -> list[pl.DataFrame]:
        """One Workflow a day, fit on all features NVTabular has an operator for."""
        inputs, tails = self._inputs(rows, [Tail.of(one, one.place + 1) for one in pending])
        found: dict[str, list[pl.DataFrame]] = {tail.name: [] for tail in tails}
        for (day,), part in inputs.partition_by(DAY, as_dict=True, include_key=False).items():
            for tail, table in zip(tails, _fit(part, tails, day), strict=True):
                found[tail.name].append(table)
        others = [one for one in pending if one.chain.name not in found]
        learnt = dict(zip((one.chain.name for one in others), super().learn(rows, others), strict=True))
        learnt |= {name: pl.concat(tables) for name, tables in found.items()}
        return [learnt[one.chain.name] for one in pending]

    def encode(self, rows: pl.DataFrame, fitted: list[Fitted], keep: list[str]) -> pl.DataFrame:
        """One Workflow a day for all features NVTabular has operators for."""
        inputs, tails = self._inputs(rows, [Tail.of(one, len(one.chain.encoders)) for one in fitted])
        if not tails:
            return super().encode(rows, fitted, keep)
        parts = inputs.with_row_index(ROW).partition_by(DAY, as_dict=True, include_key=False)
        encoded = [_transform(part.drop(ROW), tails, day).with_columns(part[ROW]) for (day,), part in parts.items()]
        ours = pl.concat(encoded).sort(ROW).drop(ROW)
        names = [one.chain.name for one in fitted]
        others = [one for one in fitted if one.chain.name not in ours.columns]
        rest = super().encode(rows, others, [name for name in keep if name not in names])
        return rest.hstack(ours).select(*(name for name in rest.columns if name not in names), *names)

    def _inputs(self, rows: pl.DataFrame, wanted: list[Tail | None]) -> tuple[pl.DataFrame, list[Tail]]:
        """The day and the column each Workflow begins with, by feature; and the tails NVTabular can do on these rows."""
        tails = [tail for tail in wanted if tail and self._can(tail, rows)]
        plan, values = rows.lazy(), {}
        for tail in tails:
            plan, value = tail.head.apply(plan)
            values[tail.name] = value if isinstance(tail.last, Category) else value.cast(pl.Float64)
        return self.collect(plan.select(DAY, **values)) if tails else pl.DataFrame({DAY: []}), tails

    def _can(self, tail: Tail, rows: pl.DataFrame) -> bool:
        """Whether the last operator can do the values that come to it, and there is at least one on each day."""
        plan, value = tail.before_last.apply(rows.lazy())
        if isinstance(tail.last, Category):
            dtype = plan.select(value).collect_schema().dtypes()[0]
            if not (dtype == pl.String or (dtype.is_integer() and dtype not in TOO_LARGE)):
                return False
        else:
            value = finite(value)
        values = self.collect(plan.group_by(DAY).agg(value.count().alias(COUNT)))
        return bool(values[COUNT].min()) and all(
            _has_all(table, values[DAY]) for table in tail.tables if table is not None
        )


@dataclass(frozen=True)
class Tail:
    """The last encoders of a chain, for which NVTabular has operators. What comes before them is Polars' part."""

    name: str
    head: Fitted
    before_last: Fitted
    encoders: tuple[Encoder, ...]
    tables: tuple[pl.DataFrame | None, ...]
    """Of the encoders; None where one learns nothing or is about to learn."""

    @classmethod
    def of(cls, one: Fitted, stop: int) -> Tail | None:
        """The tail of the chain's first `stop` encoders; None where NVTabular has no operator for the last."""
        encoders = one.chain.encoders[:stop]
        if one.chain.many or not _has_operator(encoders[-1]):
            return None
        # Ids are told from exact values, but LogOp rounds to Float32: nothing goes before an encoder that gives ids.
        start = stop - 1
        while start and encoders[-1].kind == "continuous" and _has_operator(encoders[start - 1]):
            start -= 1
        tables = (*one.tables, *[None] * stop)[:stop]

        def first(count: int) -> Fitted:
            return Fitted(replace(one.chain, encoders=encoders[:count]), tables[:count])

        return cls(one.chain.name, first(start), first(stop - 1), encoders[start:], tables[start:])

    @property
    def last(self) -> Encoder:
        """The encoder that learns, or gives what is stored."""
        return self.encoders[-1]


def _has_operator(encoder: Encoder) -> bool:
    match encoder:
        case Fill(value=value):
            return not isinstance(value, str)
        case Category(unknown_buckets=buckets):
            return buckets == 1
        case _:
            return isinstance(encoder, Log1p | Clip | Bucketise | Standardise | MinMax)


def _has_all(table: pl.DataFrame, days: pl.Series) -> bool:
    """Whether a table to look up in says something of each day."""
    if ADMITTED in table.columns:  # ids without a gap, some of them known on the first day
        return table[ID].max() == table.height + UNKNOWN and not table.filter(pl.col(ADMITTED) <= days.min()).is_empty()
    return set(days) <= set(table.drop_nulls()[DAY])


@dataclass(frozen=True)
class Build:
    """NVTabular's operators as they are on one day; `folder` is where Categorify keeps vocabularies."""

    day: date
    folder: str

    def operators(self, tail: Tail) -> list[Any]:
        """For all encoders of a tail; the last has no table where it is to be fit."""
        encoders = zip(tail.encoders, tail.tables, strict=True)
        return [operator for encoder, table in encoders for operator in self._of(tail.name, encoder, table)]

    def _of(self, name: str, encoder: Encoder, table: pl.DataFrame | None) -> list[Any]:
        ops = load().ops
        match encoder:
            case Log1p():
                return [ops.LogOp()]
            case Clip(min=low, max=high):
                return [ops.Clip(low, high)]
            case Fill(value=value):
                return [ops.LambdaOp(_finite), ops.FillMissing(value)]
            case Bucketise(boundaries=boundaries):
                # Bucketize puts null above all boundaries: here below one that all numbers pass.
                fill, cut = ops.FillMissing(-float("inf")), ops.Bucketize([-LARGEST, *boundaries])
                return [ops.LambdaOp(_finite), fill, cut, ops.LambdaOp(lambda passed: passed + 1 + (passed > 0))]
            case Category():
                return self._categorify(name, table)
            case Standardise() if table is None:
                return [ops.LambdaOp(_finite), _moments()()]
            case MinMax() if table is None:
                return [ops.LambdaOp(_finite), ops.NormalizeMinMax()]
        assert table is not None
        numbers = table.row(by_predicate=pl.col(DAY) == self.day, named=True)
        del numbers[DAY]
        if isinstance(encoder, MinMax):
            normalize = ops.NormalizeMinMax()
            normalize.mins[name], normalize.maxs[name] = numbers["min"], numbers["max"]
        else:
            normalize = ops.Normalize()
            normalize.means[name], normalize.stds[name] = numbers["mean"], numbers["std"]
        return [normalize]

    def _categorify(self, name: str, table: pl.DataFrame | None) -> list[Any]:
        """With the values admitted up to the day, if there is a vocabulary."""
        ops = load().ops
        if table is None:
            return [ops.Categorify(out_path=self.folder, cat_cache=None)]
        admitted = pl.col(ADMITTED) <= self.day
        known = table.filter(pl.col(ID) <= pl.col(ID).filter(admitted).max()).sort(ID)
        vocabulary = {name: _frame(known.select(VALUE))[VALUE]}
        # A day that is done again admits its values after those of later days, which it must not know.
        later = known.filter(~admitted)[ID].to_list()
        hide = [ops.LambdaOp(lambda ids: ids.where(~ids.isin(later), UNKNOWN))] if later else []
        return [ops.Categorify(vocabs=vocabulary, out_path=self.folder, cat_cache=None), *hide]


def _fit(part: pl.DataFrame, tails: list[Tail], day: date) -> list[pl.DataFrame]:
    """What the last encoder of each tail learns from the rows of one day, as `Encoder.learn` says."""
    with _workflow(tails, day) as (workflow, operators):
        workflow.fit(load().Dataset(_frame(part)))
        return [
            _found(tail, last, part.schema[tail.name], day) for tail, (*_, last) in zip(tails, operators, strict=True)
        ]


def _found(tail: Tail, fitted: Any, dtype: pl.DataType, day: date) -> pl.DataFrame:
    name = tail.name
    if isinstance(tail.last, Category):
        unique = pl.read_parquet(fitted.categories[name])
        statistics = {VALUE: pl.col(name).cast(dtype), COUNT: pl.col(f"{name}_size").cast(pl.Int64)}
        return unique.select(pl.lit(day).alias(DAY), **statistics)
    if isinstance(tail.last, MinMax):
        numbers = {"min": float(fitted.mins[name]), "max": float(fitted.maxs[name])}
    else:
        count, total, squares = fitted.moments.loc[name, ["count", "sum", "sum2"]]
        numbers = {COUNT: int(count), "sum": float(total), "squares": float(squares)}
    return pl.DataFrame([{DAY: day, **numbers}], schema_overrides={COUNT: pl.UInt32})


def _transform(part: pl.DataFrame, tails: list[Tail], day: date) -> pl.DataFrame:
    """The encoded columns of one day."""
    with _workflow(tails, day) as (workflow, _):
        frame = _frame(part)
        workflow.fit_schema(load().Dataset(frame).schema)
        encoded = workflow.transform(frame)
    # cuDF goes to Arrow by itself; NaN, which is how pandas says null, is dealt with where numbers are stored.
    columns = {tail.name: encoded[tail.name] for tail in tails}
    arrays = {
        name: column.to_arrow() if hasattr(column, "to_arrow") else column.to_numpy()
        for name, column in columns.items()
    }
    return pl.DataFrame(arrays).select(as_stored(pl.col(tail.name), tail.last.kind) for tail in tails)


@contextmanager
def _workflow(tails: list[Tail], day: date) -> Iterator[tuple[Any, list[list[Any]]]]:
    """A Workflow and the operators of each tail. It runs in this thread, even where this is a Dask worker."""
    import dask
    from merlin.core.utils import set_dask_client

    set_dask_client(None)
    with TemporaryDirectory() as folder, dask.config.set(scheduler="sync"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operators = [Build(day, folder).operators(tail) for tail in tails]
        outputs = [reduce(rshift, chain, [tail.name]) for tail, chain in zip(tails, operators, strict=True)]
        yield load().Workflow(reduce(add, outputs)), operators


def _frame(table: pl.DataFrame) -> Any:
    """A cuDF frame where there is a GPU, else one of pandas, in which integers stay exact beside null."""
    import pandas as pd
    from merlin.core.dispatch import get_lib

    table = table.with_columns(cs.integer().cast(pl.Int64))
    if (library := get_lib()) is not pd:
        return library.DataFrame.from_arrow(table.to_arrow())
    return table.to_arrow().to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)


def _finite(column: Any) -> Any:
    """As `encoders.finite`, of a column of pandas or cuDF."""
    return column.where(column.abs() < LARGEST)


@cache
def _moments() -> type:
    """Normalize that keeps the sums it was fit with: they add up over days, which means and deviations do not."""

    class Moments(load().ops.Normalize):  # type: ignore[misc]
        def fit_finalize(self, dask_stats: Any) -> None:
            super().fit_finalize(dask_stats)
            self.moments = dask_stats

    return Moments


@cache
def load() -> SimpleNamespace:
    """NVTabular, imported with the settings it needs.

    Raises:
        InputError: where it is not installed.
    """
    try:
        import dask

        # merlin knows the older of Dask's two dataframes only, and in it lists would become text.
        dask.config.set({"dataframe.query-planning": False, "dataframe.convert-string": False})
        with suppress(ModuleNotFoundError):
            import cudf.core.column as columns

            # merlin imports it, for remote folders partitioned by value, but cuDF has dropped it.
            vars(columns).setdefault("build_categorical_column", None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nvtabular
            from merlin.io import Dataset
    except ImportError as error:
        raise InputError(f"--engine nvtabular needs NVTabular ({error}). {INSTALL}, or take --engine cpu.") from None
    return SimpleNamespace(ops=nvtabular.ops, Workflow=nvtabular.Workflow, Dataset=Dataset)
