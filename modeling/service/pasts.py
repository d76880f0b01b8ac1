"""Past sessions of users, from the session Parquet of a prepared dataset, for a model that reads them.

N histories, E events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.service.values import as_type
from modeling.sessions import GAP, Past, Sessions
from modeling.sessions.past import SECOND, Ints, Timeline
from modeling.sessions.reading import marks, read_with_users
from modeling.splits import Cases
from modeling.vocabularies import SCHEMA, translate
from schemas.errors import InputError
from schemas.features import FeatureSchema

SESSIONS = "sessions"


class UserPasts:
    """All sessions of a prepared dataset in the ids of a model, by user and time."""

    def __init__(self, prepared: Path, model: Path, count: int) -> None:
        """`prepared` is a folder such as ROOT/sessions/1f2e, `count` how many past events the model reads.

        Raises:
            InputError: where that is no prepared dataset, or another one than the model's.
        """
        if not (prepared / SCHEMA).is_file() or not (prepared / SESSIONS).is_dir():
            raise InputError(
                f"{prepared} holds no prepared sessions: give a folder with {SCHEMA} and {SESSIONS}/, such as "
                "ROOT/sessions/1f2e."
            )
        schema, wanted = FeatureSchema.read(prepared / SCHEMA), FeatureSchema.read(model / SCHEMA)
        if schema.dataset != wanted.dataset:
            raise InputError(
                f"{prepared}: these are sessions of {schema.dataset!r}, the model is of {wanted.dataset!r}."
            )
        sessions, user, start_S, end_S = read_with_users(prepared / SESSIONS, schema)
        self.users, self.count = user.unique().sort(), count
        user_S = self._numbers(user)
        self.line = Timeline(user_S, start_S, end_S, sessions.lengths.numpy())
        *_, gap_S = self.line.before(user_S, start_S, count)
        self.gap_E = marks(sessions, gap_S)
        cases = Cases(sessions, torch.zeros(len(sessions), dtype=torch.long))
        self.sessions = translate(cases, prepared, model).history

    def before(self, histories: Sessions, users: pl.Series, begin_N: Ints) -> Sessions:
        """Histories with the past of their users: of sessions that ended before `begin_N`, in microseconds, when each began.

        A user who is not in the prepared sessions has none.
        """
        starts_N, lengths_N, gap_N = self.line.before(self._numbers(users), begin_N, self.count)
        starts, lengths = torch.from_numpy(starts_N), torch.from_numpy(lengths_N)
        nothing = torch.zeros_like(lengths)
        _, event_P = Past(self.line.order, nothing, nothing, starts, lengths).index()
        events = {
            name: torch.cat(_alike(self.sessions.events[name][event_P], values))
            for name, values in histories.events.items()
            if name in self.sessions.events
        }
        events[GAP] = torch.cat([self.gap_E[event_P], marks(histories, gap_N)])
        past = Past(torch.arange(len(event_P)), nothing, nothing, lengths.cumsum(0) - lengths, lengths)
        asked = histories.asked
        empty = histories.lengths == 0
        if bool(empty.any()):  # of a history of the past alone it is asked then
            said = torch.full((len(histories),), torch.nan, dtype=torch.float64) if asked is None else asked
            asked = torch.where(empty, torch.from_numpy(np.where(lengths_N > 0, gap_N, 0) / SECOND), said)
        return replace(histories, events=events, starts=histories.starts + len(event_P), past=past, asked=asked)

    def _numbers(self, users: pl.Series) -> Ints:
        """The number of each user; that behind the last for users who are not there.

        Raises:
            InputError: for ids of another type.
        """
        given = as_type(users.rename("user"), self.users.dtype, "users").to_frame()
        numbered = self.users.rename("user").to_frame().with_row_index("number")
        numbers = given.join(numbered, on="user", how="left", maintain_order="left")
        return numbers["number"].fill_null(len(self.users)).cast(pl.Int64).to_numpy()


def moments(at: datetime | Sequence[datetime] | None, count: int) -> Ints:
    """`count` moments in microseconds: `at` as it is or for each, or now; in UTC where it has no zone."""
    given = at if isinstance(at, Sequence) else [datetime.now(UTC) if at is None else at] * count
    if len(given) != count or not all(isinstance(moment, datetime) for moment in given):
        raise InputError(f"at: give one datetime, or one for each of {count} histories; got {at!r}.")
    return np.array([_utc(moment) for moment in given], dtype="datetime64[us]").astype(np.int64)


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def microseconds(times: pl.Series) -> Ints:
    """Times in UTC as microseconds."""
    return times.dt.epoch("us").to_numpy()


def _alike(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both of one type, with room for as many values an event as the wider one has."""
    right = right.to(left.dtype)
    if left.dim() == 1:
        return left, right
    width = max(left.shape[1], right.shape[1])
    return F.pad(left, (0, width - left.shape[1])), F.pad(right, (0, width - right.shape[1]))
