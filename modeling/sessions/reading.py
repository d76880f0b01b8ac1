"""Session Parquet, or an Arrow table of sessions -> `Sessions`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from modeling.sessions.arrays import Sessions
from modeling.sessions.past import GAP, SECOND, Ints, pasts
from schemas.columns import DAY, END, ITEM_ID, START, UNKNOWN, USER_ID
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema

_DTYPES = {"int32": torch.int32, "float32": torch.float32}


def read_sessions(
    folder: Path, schema: FeatureSchema, days: Callable[[str], bool] = lambda day: True, past: int = 0
) -> Sessions:
    """Load the session files of the wanted days, in order of time.

    With `past`, each session has so many past events of its user at most, also of earlier days that are not wanted.

    Raises:
        InputError: when no session is left; with `past`, for whole histories, and sessions without users or times.
    """
    folders = sorted(folder.glob(f"{DAY}=*"))
    wanted = [path for path in folders if days(path.name.partition("=")[2])]
    if not past:
        sessions = from_table(_table(wanted, _columns(schema), folder), schema)
        return sessions.select(sessions.end.argsort(stable=True))
    read = [path for path in folders if path.name <= wanted[-1].name] if wanted else []
    sessions, user, start_S, end_S, sizes = _with_users(read, schema, folder)
    runs, gap_S = pasts(user.rank("dense").cast(pl.Int64).to_numpy(), start_S, end_S, sessions.lengths.numpy(), past)
    sessions = replace(sessions, events=sessions.events | {GAP: marks(sessions, gap_S)}, past=runs)
    chosen_S = torch.repeat_interleave(torch.tensor([path in set(wanted) for path in read]), torch.tensor(sizes))
    place = chosen_S.nonzero().squeeze(1)
    return sessions.select(place[sessions.end[place].argsort(stable=True)])


def read_with_users(folder: Path, schema: FeatureSchema) -> tuple[Sessions, pl.Series, Ints, Ints]:
    """All sessions in the order of their files; the user of each, and when it began and ended in microseconds.

    Raises:
        InputError: as `read_sessions` with `past`.
    """
    return _with_users(sorted(folder.glob(f"{DAY}=*")), schema, folder)[:4]


def marks(sessions: Sessions, gap_S: Ints) -> Tensor:
    """GAP of all events, float32 of shape [E]: of gaps in microseconds, 1 + seconds at the first of each session; else 0."""
    gap_E = torch.zeros(len(sessions.items))
    some = sessions.lengths > 0
    gap_E[sessions.starts[some]] = 1 + (torch.from_numpy(gap_S)[some].clamp(min=0).double() / SECOND).float()
    return gap_E


def _with_users(
    folders: list[Path], schema: FeatureSchema, where: Path
) -> tuple[Sessions, pl.Series, Ints, Ints, list[int]]:
    """As `read_with_users`, and how many sessions each folder has."""
    if schema.split == "leave_one_out":
        raise InputError(
            f"inputs.past_events: the sessions of {schema.dataset!r} are whole histories, before which there is nothing. Set "
            "it to 0, or cut sessions by a gap (sessions.rule)."
        )
    sizes = [sum(pq.read_metadata(file).num_rows for file in folder.glob("*.parquet")) for folder in folders]
    table = _table(folders, [*_columns(schema), START, USER_ID], where)
    if missing := [name for name in (START, USER_ID) if name not in table.column_names]:
        raise InputError(f"{where}: these sessions have no {' and no '.join(missing)}: set inputs.past_events to 0.")
    if table[START].null_count or table[END].null_count:
        raise InputError(f"{where}: these sessions have no times, so that none is past: set inputs.past_events to 0.")
    user = pl.Series(_one_chunk(table, USER_ID))
    start_S, end_S = (_numbers(_one_chunk(table, name).cast(pa.int64())) for name in (START, END))
    return from_table(table, schema), user, start_S, end_S, sizes


def _table(folders: list[Path], columns: list[str], where: Path) -> pa.Table:
    files = [file for path in folders for file in sorted(path.glob("*.parquet"))]
    if not files:
        raise InputError(f"No session files for these days in {where}.")
    return pa.concat_tables([pq.ParquetFile(file).read(columns=columns) for file in files]).combine_chunks()


def _columns(schema: FeatureSchema) -> list[str]:
    return [END, *(column.name for column in schema.columns), *(label.name for label in schema.labels)]


def from_table(table: pa.Table, schema: FeatureSchema) -> Sessions:
    """Sessions of an Arrow table with a list column per feature of events and a scalar one per feature of sessions.

    Ids from a column's cardinality on came up after what the schema knows, on the day tested on: they become unknown. Labels
    that the table does not have are left out: only training and evaluation need them.
    """
    labels = [label for label in schema.labels if label.name in table.column_names]
    lists = {column.name: _one_chunk(table, column.name) for column in schema.columns if column.per == "event"}
    lists |= {label.name: _one_chunk(table, label.name) for label in labels if label.per == "event"}
    offsets = torch.from_numpy(_numbers(lists[ITEM_ID].offsets)).long()
    uneven = [name for name, values in lists.items() if len(values.values) != int(offsets[-1])]
    if uneven:
        raise InputError(
            f"Session files are damaged: {', '.join(uneven)} and {ITEM_ID} differ in their numbers of events."
        )
    events = {
        column.name: values_of(lists[column.name].values, column) for column in schema.columns if column.name in lists
    }
    context = {
        column.name: values_of(_one_chunk(table, column.name), column)
        for column in schema.columns
        if column.per == "session"
    }
    return Sessions(
        events=events,
        starts=offsets[:-1],
        lengths=offsets.diff(),
        end=torch.from_numpy(_numbers(_one_chunk(table, END).cast(pa.int64()), null=0)),
        context=context,
        event_labels={label.name: _label(lists[label.name].values) for label in labels if label.per == "event"},
        labels={label.name: _label(_one_chunk(table, label.name)) for label in labels if label.per == "session"},
    )


def values_of(values: pa.Array, column: FeatureColumn) -> Tensor:
    """The values of a column of a session file, or of the elements of its lists, as a tensor: [N], or [N, W] of lists."""
    if column.many:
        sizes = torch.from_numpy(_numbers(values.offsets)).long().diff()
        wide = torch.zeros(len(values), max(int(sizes.max()) if len(sizes) else 0, 1), dtype=_DTYPES[column.dtype])
        filled = torch.arange(wide.shape[1]) < sizes[:, None]
        wide[filled] = _known(_numbers(values.flatten()), column)
        return wide
    return _known(_numbers(values), column)


def _numbers(values: pa.Array, null: float | None = None) -> np.ndarray:
    """Values as an array that may be written to, with `null` in place of nulls.

    By Polars: pyarrow's own way loads pandas first, where that is installed.
    """
    series = pl.Series(values)
    return (series if null is None else series.fill_null(null)).to_numpy(writable=True)


def _known(values: np.ndarray, column: FeatureColumn) -> Tensor:
    if column.cardinality is not None:
        values = np.where(values < column.cardinality, values, np.int32(UNKNOWN))
    return torch.from_numpy(values)


def _label(values: pa.Array) -> Tensor:
    return torch.from_numpy(_numbers(values.cast(pa.float32()), null=float("nan")))


def _one_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
