"""NVTabular's Workflow of one day: operators built from encoders, fit to rows, or given a state to transform with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import cache, reduce
from operator import add, rshift
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import polars as pl
import polars.selectors as cs
import pyarrow as pa

from preprocessing.encoders import LARGEST, Encoder
from preprocessing.encoders.bucketize import Bucketize
from preprocessing.encoders.category import Category
from preprocessing.encoders.clip import Clip
from preprocessing.encoders.fill import Fill
from preprocessing.encoders.log1p import Log1p
from preprocessing.encoders.min_max import MinMax
from preprocessing.encoders.standardize import Standardize
from preprocessing.features.feature import as_stored
from preprocessing.vocabulary import ADMITTED
from schemas.columns import COUNT, DAY, ID, UNKNOWN, VALUE
from schemas.errors import InputError

INSTALL = (
    "Install it: pip install 'overnight[nvtabular]', then "
    "pip install --no-deps nvtabular==23.8.0 merlin-core==23.8.0 merlin-dataloader==23.8.0"
)


@dataclass(frozen=True)
class Chain:
    """The encoders of a feature that NVTabular does, all of which it has operators for."""

    name: str
    """Of the feature, and of its column in what goes in and comes out."""
    encoders: tuple[Encoder, ...]
    tables: tuple[pl.DataFrame | None, ...]
    """What `Encoder.lookup` gave; None where an encoder fits nothing, or is to be fit: the last one then."""

    @property
    def last(self) -> Encoder:
        """The encoder that is fit, or gives what is stored."""
        return self.encoders[-1]


def fit_day(rows: pl.DataFrame, chains: Sequence[Chain], day: date) -> list[pl.DataFrame]:
    """One column a chain, of one day -> of each chain, the statistics of its last encoder, as `Encoder.partial_fit` says."""
    with _workflow(chains, day) as (workflow, operators):
        workflow.fit(load().Dataset(_frame(rows)))
        return [
            _statistics(chain, last, rows.schema[chain.name], day)
            for chain, (*_, last) in zip(chains, operators, strict=True)
        ]


def transform_day(rows: pl.DataFrame, chains: Sequence[Chain], day: date) -> pl.DataFrame:
    """One column a chain, of one day -> the same columns encoded, as they are stored."""
    with _workflow(chains, day) as (workflow, _):
        frame = _frame(rows)
        workflow.fit_schema(load().Dataset(frame).schema)
        encoded = workflow.transform(frame)
    # cuDF goes to Arrow by itself; NaN, which is how pandas says null, is dealt with where numbers are stored.
    columns = {chain.name: encoded[chain.name] for chain in chains}
    arrays = {
        name: column.to_arrow() if hasattr(column, "to_arrow") else column.to_numpy()
        for name, column in columns.items()
    }
    return pl.DataFrame(arrays).select(as_stored(pl.col(chain.name), chain.last.kind) for chain in chains)


@contextmanager
def _workflow(chains: Sequence[Chain], day: date) -> Iterator[tuple[Any, list[list[Any]]]]:
    """A Workflow and the operators of each chain. It runs in this thread, even where this is a Dask worker."""
    import dask
    from merlin.core.utils import set_dask_client

    set_dask_client(None)
    with TemporaryDirectory() as folder, dask.config.set(scheduler="sync"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operators = [_Build(day, folder).operators(chain) for chain in chains]
        outputs = [reduce(rshift, steps, [chain.name]) for chain, steps in zip(chains, operators, strict=True)]
        yield load().Workflow(reduce(add, outputs)), operators


def _statistics(chain: Chain, fitted: Any, dtype: pl.DataType, day: date) -> pl.DataFrame:
    """What a fitted operator has counted, as a table of the day."""
    name = chain.name
    if isinstance(chain.last, Category):
        unique = pl.read_parquet(fitted.categories[name], glob=False)
        statistics = {VALUE: pl.col(name).cast(dtype), COUNT: pl.col(f"{name}_size").cast(pl.Int64)}
        return unique.select(pl.lit(day).alias(DAY), **statistics)
    if isinstance(chain.last, MinMax):
        numbers = {"min": float(fitted.mins[name]), "max": float(fitted.maxs[name])}
    else:
        count, total, squares = fitted.moments.loc[name, ["count", "sum", "sum2"]]
        numbers = {COUNT: int(count), "sum": float(total), "squares": float(squares)}
    return pl.DataFrame([{DAY: day, **numbers}], schema_overrides={COUNT: pl.UInt32})


@dataclass(frozen=True)
class _Build:
    """Operators as they are on one day; `folder` is where Categorify keeps vocabularies."""

    day: date
    folder: str

    def operators(self, chain: Chain) -> list[Any]:
        """Those of all encoders of a chain."""
        encoders = zip(chain.encoders, chain.tables, strict=True)
        return [operator for encoder, table in encoders for operator in self._of(chain.name, encoder, table)]

    def _of(self, name: str, encoder: Encoder, table: pl.DataFrame | None) -> list[Any]:
        ops = load().ops
        match encoder:
            case Log1p():
                return [ops.LogOp()]
            case Clip(min=low, max=high):
                return [ops.Clip(low, high)]
            case Fill(value=value):
                return [ops.LambdaOp(_finite), ops.FillMissing(value)]
            case Bucketize(boundaries=boundaries):
                # NVTabular's puts null above all boundaries: here below one that all numbers pass.
                fill, cut = ops.FillMissing(-float("inf")), ops.Bucketize([-LARGEST, *boundaries])
                return [ops.LambdaOp(_finite), fill, cut, ops.LambdaOp(lambda passed: passed + 1 + (passed > 0))]
            case Category():
                return self._categorify(name, table)
            case Standardize() if table is None:
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
        listed = table.filter(pl.col(ID) <= pl.col(ID).filter(admitted).max()).sort(ID)
        vocabulary = {name: _frame(listed.select(VALUE))[VALUE]}
        # A day that is done again admits its values after those of later days, which are still unknown on it.
        later = listed.filter(~admitted)[ID].to_list()
        hide = [ops.LambdaOp(lambda ids: ids.where(~ids.isin(later), UNKNOWN))] if later else []
        return [ops.Categorify(vocabs=vocabulary, out_path=self.folder, cat_cache=None), *hide]


def _frame(table: pl.DataFrame) -> Any:
    """A cuDF frame where there is a GPU, else one of pandas, in which integers stay exact next to null."""
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
