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
from modeling.sessions.past import GAP, SECOND, pasts
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
    if past and schema.split == "leave_one_out":
        raise InputError(
            f"inputs.past_events is {past}, but the sessions of {schema.dataset!r} are whole histories, before which there is "
            "nothing: set it to 0, or cut sessions by a gap (sessions.rule)."
        )
    folders = sorted(folder.glob(f"{DAY}=*"))
    wanted = [path for path in folders if days(path.name.partition("=")[2])]
    read = wanted if not past else [path for path in folders if path.name <= wanted[-1].name] if wanted else []
    files = [file for path in read for file in sorted(path.glob("*.parquet"))]
    if not files:
        raise InputError(f"No session files for these days in {folder}.")
    columns = [END, *(column.name for column in schema.columns), *(label.name for label in schema.labels)]
    columns += [START, USER_ID] if past else []
    tables = [pq.ParquetFile(file).read(columns=columns) for file in files]
    table = pa.concat_tables(tables).combine_chunks()
    sessions = from_table(table, schema)
    if not past:
        return sessions.select(sessions.end.argsort(stable=True))
    sessions = with_past(sessions, table, past, folder)
    chosen = np.repeat([file.parent in set(wanted) for file in files], [len(part) for part in tables])
    place = torch.from_numpy(np.flatnonzero(chosen))
    return sessions.select(place[sessions.end[place].argsort(stable=True)])


def with_past(sessions: Sessions, table: pa.Table, past: int, where: Path | str) -> Sessions:
    """Sessions, of the rows of `table` in its order, with at most `past` past events each, and the feature GAP.

    Raises:
        InputError: where the table has no users, or no times.
    """
    if USER_ID not in table.column_names or START not in table.column_names:
        raise InputError(
            f"{where}: inputs.past_events needs the columns {USER_ID} and {START} of sessions; prepare anew."
        )
    if table[START].null_count or table[END].null_count:
        raise InputError(
            f"{where}: inputs.past_events is {past}, but these sessions have no times, so that none is past: set it to 0."
        )
    user_S = pl.Series(_one_chunk(table, USER_ID)).rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    runs, gap_S = pasts(user_S, _microseconds(table, START), _microseconds(table, END), sessions.lengths.numpy(), past)
    gap_E = torch.zeros(len(sessions.items))
    some = sessions.lengths > 0
    gap_E[sessions.starts[some]] = 1 + (torch.from_numpy(gap_S)[some].clamp(min=0).double() / SECOND).float()
    return replace(sessions, events=sessions.events | {GAP: gap_E}, past=runs)


def _microseconds(table: pa.Table, name: str) -> np.ndarray:
    return np.array(_one_chunk(table, name).cast(pa.int64()).fill_null(0))


def from_table(table: pa.Table, schema: FeatureSchema) -> Sessions:
    """Sessions of an Arrow table with a list column per feature of events and a scalar one per feature of sessions.

    Ids from a column's cardinality on came up after what the schema knows, on the day tested on: they become unknown. Labels
    that the table does not have are left out: only training and evaluation need them.
    """
    labels = [label for label in schema.labels if label.name in table.column_names]
    lists = {column.name: _one_chunk(table, column.name) for column in schema.columns if column.per == "event"}
    lists |= {label.name: _one_chunk(table, label.name) for label in labels if label.per == "event"}
    offsets = torch.from_numpy(np.array(lists[ITEM_ID].offsets, dtype=np.int64))
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
        end=torch.from_numpy(np.array(_one_chunk(table, END).cast(pa.int64()).fill_null(0))),
        context=context,
        event_labels={label.name: _label(lists[label.name].values) for label in labels if label.per == "event"},
        labels={label.name: _label(_one_chunk(table, label.name)) for label in labels if label.per == "session"},
    )


def values_of(values: pa.Array, column: FeatureColumn) -> Tensor:
    """The values of a column of a session file, or of the elements of its lists, as a tensor: [N], or [N, W] of lists."""
    if column.many:
        sizes = torch.from_numpy(np.diff(np.array(values.offsets, dtype=np.int64)))
        wide = torch.zeros(len(values), max(int(sizes.max()) if len(sizes) else 0, 1), dtype=_DTYPES[column.dtype])
        filled = torch.arange(wide.shape[1]) < sizes[:, None]
        wide[filled] = _known(np.array(values.flatten()), column)
        return wide
    return _known(np.array(values), column)


def _known(values: np.ndarray, column: FeatureColumn) -> Tensor:
    if column.cardinality is not None:
        values = np.where(values < column.cardinality, values, np.int32(UNKNOWN))
    return torch.from_numpy(values)


def _label(values: pa.Array) -> Tensor:
    return torch.from_numpy(np.array(values.cast(pa.float32()).fill_null(float("nan"))))


def _one_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
