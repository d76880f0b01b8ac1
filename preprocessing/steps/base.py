"""The base class of ETL steps.

A step named in a dataset's `steps` is the class its file is named after: `drop_repeats` is `DropRepeats` in
`drop_repeats.py`. Its fields are its options in the YAML file. A new file is known as soon as it is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Self

import polars as pl
from pydantic import BaseModel, ConfigDict

from schemas.columns import ITEM_ID, POSITION, RESERVED, SESSION_ID, TIMESTAMP, USER_ID, VALID_FROM
from schemas.dataset import Dataset
from schemas.errors import InputError, unknown

NEEDED = (USER_ID, SESSION_ID, ITEM_ID, TIMESTAMP, POSITION)  # what no step may take away or put another value in

# Columns that preparation looks for and that come from the files alone: a step that made one would change what rows mean.
ROLES = {
    USER_ID: "who an event is of",
    SESSION_ID: "the session that the files give an event",
    ITEM_ID: "what an event is about",
    TIMESTAMP: "the time of an event",
    POSITION: "the order of events without times",
    VALID_FROM: "since when a row of the item table is true",
}


class Step(BaseModel):
    """One ETL step. Rows it removes are counted under its name; it never adds any.

    Events have the columns `user_id`, `item_id`, `timestamp` (or `position`), and the others the dataset maps. Use filters,
    sorts, global shifts, group_by and joins (`maintain_order="left"`): they run on every engine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs_sessions: ClassVar[bool] = False
    """True: runs once sessions are cut; rows are then in order of user, session and time, and `session_index` numbers the
    sessions. False: runs where the dataset names it, on events in any order or, after a step that needs sessions, in theirs."""
    needs_all_rows: ClassVar[bool] = False
    """True for what looks at rows of other users or other days: only for datasets taken whole (split: leave_one_out)."""

    needs_open_events: ClassVar[bool] = False
    """True for what looks at all events of a user's day: it cannot come after a step that needs sessions, since events of
    sessions that are still open are set aside before that one."""

    def bind(self, dataset: Dataset) -> Self:
        """Check the step against the dataset and fetch what it needs from it. Runs before any event is read."""
        return self

    @property
    def secret(self) -> str:
        """A hash of what the result depends on beside the options, such as a key from the environment: days are done anew."""
        return ""

    def read(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Change or add columns, never rows, as events are read: on the CPU whatever the engine, before any check."""
        return events

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """The events after this step. It sees some users with all their events of one or more days, not all users."""
        return events

    def keeps(self) -> pl.Expr | None:
        """Of a step that only drops rows, each for what is in its own session, in order: whether a row stays, never null.

        `apply` then is `events.filter(keeps)`, and may be done in one go with other such filters. None: it is no such step.
        """
        return None

    def expect(self, events: pl.LazyFrame, there: Iterable[str] = (), free: Iterable[str] = ()) -> None:
        """Raise InputError for columns that are not there, or for names of new ones that are taken.

        Steps are applied to no events first, so what is found here is said before any event is read.
        """
        columns = events.collect_schema().names()
        step = f"step {type(self).__module__.rpartition('.')[2]}"
        for name in there:
            if name not in columns:
                raise InputError(f"{step}: {unknown('column', name, columns)}")
        for name in free:
            refuse_name(step, name)
            if name in columns:
                raise InputError(f"{step}: the events have a column {name!r} already; give the new one another name.")


def refuse_name(step: str, name: str) -> None:
    """Raise InputError for the name of a new column that is no word, has a meaning of its own or is Overnight's."""
    if not re.fullmatch(r"[^\W\d]\w*", name):
        raise InputError(f"{step}: the new column {name!r} must be letters, digits and underscores.")
    if name in ROLES:
        mend = f"map it in events.columns, or give the column another name, such as my_{name}."
        raise InputError(f"{step}: {name!r} is {ROLES[name]}; {mend}")
    if name in RESERVED:
        raise InputError(
            f"{step}: {name!r} is Overnight's own ({RESERVED[name]}); give the column another name, such as my_{name}."
        )
