"""Sessions as flat arrays, their split into train, validation and test, and packed batches cut from them.

Shapes: S sessions, E events, B packed rows, L places in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from schemas.artifacts import Manifest
from schemas.columns import DAY, END, FIRST_ID, ITEM_ID, UNKNOWN
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema

MICROSECONDS_PER_DAY = 86_400_000_000
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Sessions:
    """S sessions over flat event arrays: session s holds the events starts[s] .. starts[s] + lengths[s] - 1.

    `events` maps each feature to a tensor of shape [E]; `end` is the time of the last event in microseconds (0: unknown).
    Selecting sessions and hiding their last items move the bounds and share the events.
    """

    events: dict[str, torch.Tensor]
    starts: torch.Tensor
    lengths: torch.Tensor
    end: torch.Tensor

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def items(self) -> torch.Tensor:
        """Item ids of all events, shape [E]."""
        return self.events[ITEM_ID]

    @property
    def num_events(self) -> int:
        """Events of the sessions selected."""
        return int(self.lengths.sum())

    def select(self, index: torch.Tensor) -> Sessions:
        """Only the sessions at `index` (positions or a boolean mask), in that order."""
        positions = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        return replace(
            self,
            starts=self.starts[positions],
            lengths=self.lengths[positions],
            end=self.end[positions],
        )

    def drop_last(self, count: int) -> Sessions:
        """Without the last `count` events of each session."""
        return replace(self, lengths=(self.lengths - count).clamp(min=0))

    def most_recent(self, count: int) -> Sessions:
        """The last `count` events of each session at most."""
        extra = (self.lengths - count).clamp(min=0)
        return replace(self, starts=self.starts + extra, lengths=self.lengths - extra)

    def item_from_end(self, place: int) -> torch.Tensor:
        """The item `place` places before the last of each session, shape [S]."""
        return self.items[self.starts + self.lengths - 1 - place].long()

    def event_index(self) -> tuple[torch.Tensor, torch.Tensor]:
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
        )


@dataclass(frozen=True)
class Cases:
    """Sessions with their next item hidden: `history` to predict from, `target` of shape [S]."""

    history: Sessions
    target: torch.Tensor

    def known(self) -> Cases:
        """Only the cases whose target is in the catalogue and whose history is not empty."""
        keep = (self.target >= FIRST_ID) & (self.history.lengths > 0)
        return Cases(self.history.select(keep), self.target[keep])


@dataclass(frozen=True)
class Split:
    """Training sessions, and the cases that choose (validation) and judge (test) a model."""

    train: Sessions
    validation: Cases
    test: Cases
    last_day: Sessions  # the newest training sessions: what last-day popularity counts


def read_sessions(folder: Path, schema: FeatureSchema, days: Callable[[str], bool] = lambda day: True) -> Sessions:
    """Load the session files of the wanted days, in order of time.

    Raises:
        InputError: when no session is left.
    """
    columns = [END, *(column.name for column in (schema.items, *schema.side_features))]
    folders = sorted(path for path in folder.glob(f"{DAY}=*") if days(path.name.partition("=")[2]))
    files = [file for path in folders for file in sorted(path.glob("*.parquet"))]
    if not files:
        raise InputError(f"No session files for these days in {folder}.")
    table = pa.concat_tables([pq.ParquetFile(file).read(columns=columns) for file in files]).combine_chunks()
    sessions = from_table(table, schema)
    return sessions.select(sessions.end.argsort(stable=True))


def from_table(table: pa.Table, schema: FeatureSchema) -> Sessions:
    """Sessions of an Arrow table with one list column per feature.

    Ids from a column's cardinality on came up after what the schema knows, on the day tested on: they become unknown.
    """
    columns = {column.name: column for column in (schema.items, *schema.side_features)}
    lists = {name: _one_chunk(table, name) for name in columns}
    offsets = torch.from_numpy(np.array(lists[ITEM_ID].offsets, dtype=np.int64))
    uneven = [name for name, values in lists.items() if len(values.values) != int(offsets[-1])]
    if uneven:
        raise InputError(
            f"Session files are damaged: {', '.join(uneven)} and {ITEM_ID} differ in their numbers of events."
        )
    end = _one_chunk(table, END).cast(pa.int64()).fill_null(0)
    return Sessions(
        events={name: _known(np.array(values.values), columns[name]) for name, values in lists.items()},
        starts=offsets[:-1],
        lengths=offsets.diff(),
        end=torch.from_numpy(np.array(end)),
    )


def _known(values: np.ndarray, column: FeatureColumn) -> torch.Tensor:
    if column.cardinality is not None:
        values = np.where(values < column.cardinality, values, np.int32(UNKNOWN))
    return torch.from_numpy(values)


def _one_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def split_sessions(manifest: Manifest, schema: FeatureSchema, most_validation: int) -> Split:
    """Train, validation and test of a prepared dataset, by the rule of its schema.

    day: test = sessions of the last day; validation = up to `most_validation` sessions of the day before, evenly spread
    and held out of training (at most a tenth of that day). leave_one_out: test = the last item of every history;
    validation = the one before, of evenly spread histories; both are held out of training.
    """
    folder = manifest.folder / "sessions"
    if schema.split == "leave_one_out":
        return _split_histories(read_sessions(folder, schema), most_validation)
    test_day = str(manifest.facts["test_day"])
    train = read_sessions(folder, schema, lambda day: day < test_day)
    test = read_sessions(folder, schema, lambda day: day == test_day)
    newest_day = max(day for day in manifest.facts["days"] if day < test_day)
    newest = read_sessions(folder, schema, lambda day: day == newest_day)
    first = len(train) - len(newest)  # files are read in order of days
    held_out = first + _spread(len(newest), min(most_validation, len(newest) // 10))
    keep = torch.ones(len(train), dtype=torch.bool)
    keep[held_out] = False
    kept = train.select(keep)
    last_day = train.select(keep & (torch.arange(len(train)) >= first))
    return Split(kept, hide_last(train.select(held_out)), hide_last(test), last_day)


def _split_histories(histories: Sessions, most_validation: int) -> Split:
    train = histories.drop_last(2)
    chosen = histories.select(_spread(len(histories), most_validation))
    validation = Cases(chosen.drop_last(2), chosen.item_from_end(1))
    return Split(train, validation, hide_last(histories), train)


def hide_last(sessions: Sessions) -> Cases:
    """The last item of each session becomes its target."""
    return Cases(sessions.drop_last(1), sessions.item_from_end(0))


def _spread(size: int, count: int) -> torch.Tensor:
    """`count` positions evenly spread over range(size)."""
    count = min(count, size)
    return torch.arange(count) * size // max(count, 1)


def pack(sessions: Sessions, row_length: int, from_end: bool) -> tuple[torch.Tensor, Batch]:
    """Lay sessions side by side in rows of about `row_length` places: a session starts in the row where its start falls.

    Returns:
        The event index of shape [B, L] (-1: padding) and a batch with every feature, `segments` (0: padding, then 1, 2, ..
        per session of the batch) and `positions` (within the session, counted forward or from its end), all of [B, L].
    """
    session, event = sessions.event_index()
    before = sessions.lengths.cumsum(0) - sessions.lengths
    row_of_session = before // row_length
    _, row_of_session = row_of_session.unique_consecutive(return_inverse=True)  # a long session may leave rows empty
    first_in_row = torch.full((int(row_of_session[-1]) + 1,), len(session), device=event.device)
    first_in_row.scatter_reduce_(0, row_of_session, before, "amin")
    row = row_of_session[session]
    place = torch.arange(len(session), device=event.device) - first_in_row[row]
    shape = (len(first_in_row), int(place.max()) + 1)

    def lay(values: torch.Tensor, empty: int) -> torch.Tensor:
        out = torch.full(shape, empty, dtype=values.dtype, device=values.device)
        out[row, place] = values
        return out

    forward = torch.arange(len(session), device=event.device) - before[session]
    positions = sessions.lengths[session] - 1 - forward if from_end else forward
    batch = {name: lay(values[event], 0) for name, values in sessions.events.items()}
    batch |= {"segments": lay(session + 1, 0), "positions": lay(positions, 0)}
    return lay(event, -1), batch


class Schedule(torch.utils.data.Dataset[Batch]):
    """Every training batch of a whole run, in order: batch i is a function of the seed and i alone, so runs can resume.

    A batch holds whole sessions, about `tokens_per_step` events in rows of about `row_length`.
    """

    def __init__(
        self,
        sessions: Sessions,
        make_batch: Callable[[Sessions], Batch],
        *,
        epochs: int,
        tokens_per_step: int,
        shuffle: bool,
        half_life_days: float | None,
        seed: int,
    ) -> None:
        self.sessions, self.make_batch = sessions, make_batch
        self.shuffle, self.half_life_days, self.seed = shuffle, half_life_days, seed
        self.tokens_per_step = tokens_per_step
        self._epoch, self._order, self._bounds = -1, torch.empty(0), torch.empty(0)
        self.tokens_per_epoch: list[int] = []
        self.steps_per_epoch: list[int] = []
        for epoch in range(epochs):
            self._open(epoch)
            self.steps_per_epoch.append(len(self._bounds) - 1)
            self.tokens_per_epoch.append(int(sessions.lengths[self._order].sum()) - len(self._order))
        self._first_step = np.concatenate([[0], np.cumsum(self.steps_per_epoch)])

    def __len__(self) -> int:
        return int(self._first_step[-1])

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(step)
        epoch = int(np.searchsorted(self._first_step, step, side="right")) - 1
        if epoch != self._epoch:
            self._open(epoch)
        place = step - int(self._first_step[epoch])
        return self.make_batch(self.sessions.select(self._order[self._bounds[place] : self._bounds[place + 1]]))

    def _open(self, epoch: int) -> None:
        """Order the sessions of an epoch and cut them into steps of equal numbers of events."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        count = len(self.sessions)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        if epoch and self.half_life_days:
            age_days = (self.sessions.end.max() - self.sessions.end).cpu() / MICROSECONDS_PER_DAY
            kept = torch.rand(count, generator=generator) < 0.5 ** (age_days / self.half_life_days)
            order = order[kept[order]]
        filled = self.sessions.lengths.cpu()[order].cumsum(0)
        steps = max(1, round(int(filled[-1]) / self.tokens_per_step))
        targets = torch.arange(1, steps) * int(filled[-1]) // steps
        bounds = torch.searchsorted(filled, targets)
        self._bounds = torch.cat([torch.tensor([0]), bounds, torch.tensor([len(order)])]).unique()
        self._epoch, self._order = epoch, order
