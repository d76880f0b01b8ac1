"""Sessions as flat arrays, read from session Parquet.

Shapes: S sessions, E events, W values of an event that has many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from schemas.columns import DAY, END, FIRST_ID, ITEM_ID, UNKNOWN
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema

DAY_MICROSECONDS = 86_400_000_000


@dataclass(frozen=True)
class Sessions:
    """S sessions over flat event arrays: session s holds the events starts[s] .. starts[s] + lengths[s] - 1.

    `events` maps each feature to a tensor of shape [E], or [E, W] where an event has many values (0: none); `context` maps
    each feature per session to one of shape [S]. `end` is the time of the last event in microseconds (0: unknown). Labels,
    [E] and [S], are float32, NaN where there is none. Selecting sessions and hiding their last items move the bounds and
    share the events.
    """

    events: dict[str, Tensor]
    starts: Tensor
    lengths: Tensor
    end: Tensor
    context: dict[str, Tensor] = field(default_factory=dict)
    event_labels: dict[str, Tensor] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def items(self) -> Tensor:
        """Item ids of all events, shape [E]."""
        return self.events[ITEM_ID]

    @property
    def num_events(self) -> int:
        """Events of the sessions selected."""
        return int(self.lengths.sum())

    def select(self, index: Tensor) -> Sessions:
        """Only the sessions at `index` (positions or a boolean mask), in that order."""
        positions = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        return replace(
            self,
            starts=self.starts[positions],
            lengths=self.lengths[positions],
            end=self.end[positions],
            context={name: values[positions] for name, values in self.context.items()},
            labels={name: values[positions] for name, values in self.labels.items()},
        )

    def drop_last(self, count: int) -> Sessions:
        """Without the last `count` events of each session."""
        return replace(self, lengths=(self.lengths - count).clamp(min=0))

    def most_recent(self, count: int) -> Sessions:
        """The last `count` events of each session at most."""
        extra = (self.lengths - count).clamp(min=0)
        return replace(self, starts=self.starts + extra, lengths=self.lengths - extra)

    def keep(self, keep_E: Tensor, since: str | None = None) -> Sessions:
        """Only some events, given for all events in the order of `event_index`.

        The feature `since`, seconds since the previous event, grows by those of the events left out.
        """
        session_E, event_E = self.event_index()
        events = {name: values[event_E] for name, values in self.events.items()}
        if since is not None:
            upto_E = events[since].double().cumsum(0)
            kept_E = upto_E[keep_E]
            events[since] = torch.cat([kept_E[:1], kept_E.diff()]).to(events[since].dtype)
        lengths = torch.zeros_like(self.lengths).scatter_add_(0, session_E, keep_E.long())
        return replace(
            self,
            events={name: values if name == since else values[keep_E] for name, values in events.items()},
            event_labels={name: values[event_E][keep_E] for name, values in self.event_labels.items()},
            starts=lengths.cumsum(0) - lengths,
            lengths=lengths,
        )

    def most_apart(self, elapsed: str) -> float:
        """The most seconds between the first and the last event of a session, by the feature of seconds since the previous."""
        upto_E = torch.nn.functional.pad(self.events[elapsed].double().cumsum(0), (1, 0))
        some = self.select(self.lengths > 0)
        last_S = some.starts + some.lengths
        return float((upto_E[last_S] - upto_E[some.starts + 1]).max()) if len(some) else 0.0

    def item_from_end(self, place: int) -> Tensor:
        """The item `place` places before the last of each session, shape [S]."""
        return self.items[self.starts + self.lengths - 1 - place].long()

    def item_counts(self, num_items: int) -> Tensor:
        """Events of each item of the catalogue, int64 of shape [num_items]; column v is item id v + 3."""
        _, event = self.event_index()
        column = self.items[event].long() - FIRST_ID
        return torch.bincount(column[(column >= 0) & (column < num_items)], minlength=num_items)

    def event_index(self) -> tuple[Tensor, Tensor]:
        """(session, event) of every event of these sessions: two tensors of shape [num_events]."""
        session = torch.repeat_interleave(self.lengths)
        first = self.lengths.cumsum(0) - self.lengths
        place = torch.arange(len(session), device=session.device) - first[session]
        return session, self.starts[session] + place

    def to(self, device: torch.device | str) -> Sessions:
        """The same sessions with their arrays on `device`."""
        return replace(
            self,
            events={name: values.to(device) for name, values in self.events.items()},
            starts=self.starts.to(device),
            lengths=self.lengths.to(device),
            end=self.end.to(device),
            context={name: values.to(device) for name, values in self.context.items()},
            event_labels={name: values.to(device) for name, values in self.event_labels.items()},
            labels={name: values.to(device) for name, values in self.labels.items()},
        )


_DTYPES = {"int32": torch.int32, "float32": torch.float32}


def read_sessions(folder: Path, schema: FeatureSchema, days: Callable[[str], bool] = lambda day: True) -> Sessions:
    """Load the session files of the wanted days, in order of time.

    Raises:
        InputError: when no session is left.
    """
    columns = [END, *(column.name for column in schema.columns), *(label.name for label in schema.labels)]
    folders = sorted(path for path in folder.glob(f"{DAY}=*") if days(path.name.partition("=")[2]))
    files = [file for path in folders for file in sorted(path.glob("*.parquet"))]
    if not files:
        raise InputError(f"No session files for these days in {folder}.")
    table = pa.concat_tables([pq.ParquetFile(file).read(columns=columns) for file in files]).combine_chunks()
    sessions = from_table(table, schema)
    return sessions.select(sessions.end.argsort(stable=True))


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
