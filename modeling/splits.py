"""Which sessions a model is fit on, which cases choose and which judge it, and the labels that training and a test ask about.

A label belongs to an event, or to a session as a whole and so to its last event. It is predicted from the events before.

S sessions, E events, N labels that are known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import pyarrow.parquet as pq
import torch
from torch import Tensor

from modeling.sessions import Sessions, read_sessions
from schemas.artifacts import Manifest, require_whole
from schemas.columns import DAY, FIRST_ID
from schemas.features import FeatureSchema, LabelColumn


@dataclass(frozen=True)
class Cases:
    """Sessions with their next item hidden: `history` to predict from, `target` of shape [S], both on one device."""

    history: Sessions
    target: Tensor

    def known(self) -> Cases:
        """Only the cases whose target is in the catalogue and whose history is not empty."""
        keep = (self.target >= FIRST_ID) & (self.history.lengths > 0)
        return self.select(keep)

    def select(self, index: Tensor) -> Cases:
        """Only the cases at `index` (positions or a boolean mask), in that order."""
        return Cases(self.history.select(index), self.target[index])

    def seen(self) -> Tensor:
        """Whether the history holds the target, bool of shape [S]."""
        session, event = self.history.event_index()
        same = self.history.items[event] == self.target[session]
        return torch.zeros_like(self.target, dtype=torch.bool).index_put_((session[same],), same[same])

    def to(self, device: torch.device | str) -> Cases:
        """The same cases, histories and targets, with their arrays on `device`."""
        return Cases(self.history.to(device), self.target.to(device))


@dataclass(frozen=True)
class Split:
    """Training sessions, and the cases that choose (validation) and judge (test) a model."""

    train: Sessions
    validation: Cases
    test: Cases
    last_day: Sessions  # the newest training sessions: what last-day popularity counts

    @property
    def num_validation(self) -> int:
        """Validation cases that can be ranked: few or none where the newest training day is small."""
        return len(self.validation.known().target)


def split_sessions(manifest: Manifest, schema: FeatureSchema, most_validation: int, past: int = 0) -> Split:
    """Train, validation and test of a prepared dataset, by the rule of its schema.

    day: test = sessions of the last day; validation = up to `most_validation` sessions of the day before, evenly spread
    and held out of training (at most a tenth of that day). leave_one_out: test = the last item of every history;
    validation = the one before, of evenly spread histories; both are held out of training.

    Items are held out of sessions as they were prepared; nothing is cut before. Preparation keeps the `max_length` latest
    events of a session, so with leave_one_out a long history has the last of these for the test, the one before for
    validation, and `max_length - 2` for training. What a model reads of a longer history is its own to decide: never
    more of it than of those in training.

    With `past`, sessions have so many events of their user's past sessions at most. Those of training hold no session that
    validation holds out, nor what came before it.

    Raises:
        InputError: when a file of the sessions is missing or holds other bytes than were written; with `past`, for whole
            histories, users or times that are missing.
    """
    require_whole(manifest)
    folder = manifest.folder / "sessions"
    if schema.split == "leave_one_out":
        return _split_histories(read_sessions(folder, schema, past=past), most_validation)
    test_day = str(manifest.facts["test_day"])
    train = read_sessions(folder, schema, lambda day: day < test_day, past)
    test = read_sessions(folder, schema, lambda day: day == test_day, past)
    newest_day = max(day for day in manifest.facts["days"] if day < test_day)
    newest = read_sessions(folder, schema, lambda day: day == newest_day)
    first = len(train) - len(newest)  # files are read in order of days
    held_out = first + spread(len(newest), min(most_validation, len(newest) // 10))
    keep = torch.ones(len(train), dtype=torch.bool)
    keep[held_out] = False
    chosen = train.select(held_out)
    kept = train.select(keep).without(chosen)
    last_day = train.select(keep & (torch.arange(len(train)) >= first))
    return Split(kept, hide_last(chosen), hide_last(test), last_day)


def newest_and_replay(manifest: Manifest, split: Split, first_day: str, replay: float, seed: int) -> Tensor:
    """Which training sessions are read by a model that starts from another one, bool of shape [S].

    All of the days from `first_day` on; of those before, a share of `replay`, drawn anew for each test day. Histories that have
    no days are all read.
    """
    read_S = torch.ones(len(split.train), dtype=torch.bool)
    test_day = manifest.facts["test_day"]
    if test_day is None:
        return read_S
    days = (path for path in (manifest.folder / "sessions").glob(f"{DAY}=*"))
    newest = [path for path in days if first_day <= path.name.partition("=")[2] < str(test_day)]
    rows = sum(pq.read_metadata(file).num_rows for path in newest for file in path.glob("*.parquet"))
    old = len(split.train) - (rows - len(split.validation.target))  # sessions are in order of days
    generator = torch.Generator().manual_seed(seed * 1_000_003 + date.fromisoformat(str(test_day)).toordinal())
    read_S[:old] = torch.rand(max(old, 0), generator=generator) < replay
    return read_S


def _split_histories(histories: Sessions, most_validation: int) -> Split:
    train = histories.drop_last(2)
    chosen = histories.select(spread(len(histories), most_validation))
    validation = Cases(chosen.drop_last(2), chosen.item_from_end(1))
    return Split(train, validation, hide_last(histories), train)


def hide_last(sessions: Sessions) -> Cases:
    """The last item of each session becomes its target."""
    return Cases(sessions.drop_last(1), sessions.item_from_end(0))


def spread(size: int, count: int) -> Tensor:
    """`count` positions evenly spread over range(size)."""
    count = min(count, size)
    return torch.arange(count) * size // max(count, 1)


def trained_items(train: Sessions, num_items: int) -> Tensor:
    """Which items of the catalogue a model can learn something of, bool of shape [num_items]: those with an event in a
    training session of two events or more.
    """
    return train.select(train.lengths >= 2).item_counts(num_items) > 0


def training_labels(train: Sessions, column: LabelColumn) -> Tensor:
    """The known labels that training may ask about, [N]: of sessions, or of all events but each session's first."""
    if column.per == "session":
        value_N = train.labels[column.name]
    else:
        _, event_N = replace(train, starts=train.starts + 1, lengths=(train.lengths - 1).clamp(min=0)).event_index()
        value_N = train.event_labels[column.name][event_N]
    return value_N[~value_N.isnan()]


def label_cases(cases: Cases, column: LabelColumn, *, back: bool) -> tuple[Sessions, Tensor]:
    """N histories and the label, always known, of what comes after each.

    It is the label of the event hidden, or of its session. With `back`, a session whose hidden event has no label of its own
    (how long people stayed is not known of the last) is cut before the last event that has one.
    """
    history = cases.history
    if column.per == "session":
        lengths_S, value_S = history.lengths, history.labels[column.name]
    else:
        value_E = history.event_labels[column.name]
        session, event = replace(history, lengths=history.lengths + 1).event_index()
        place = event - history.starts[session]
        asked = ~value_E[event].isnan() & (back | (place == history.lengths[session]))
        lengths_S = torch.zeros_like(history.lengths).scatter_reduce(0, session, place * asked, "amax")
        value_S = value_E[history.starts + lengths_S]
    keep_S = (lengths_S > 0) & ~value_S.isnan()
    shorter = replace(history, lengths=lengths_S, following=history.starts + lengths_S)
    return shorter.select(keep_S), value_S[keep_S]
