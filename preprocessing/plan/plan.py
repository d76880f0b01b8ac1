"""A dataset's rules, steps and features, compiled against the columns of its events before a row is read.

Steps run in the order in which the dataset names them. Those before the first that needs sessions run on events as they come;
that one and all after it run once sessions are cut, on rows in order of session and time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from preprocessing import steps as steps_package
from preprocessing.account import CUT, DUPLICATES, SHORT
from preprocessing.features.compile import compile_features
from preprocessing.features.feature import Feature
from preprocessing.plan.own_steps import apply_through, read_through
from preprocessing.plan.rules import Rules
from preprocessing.sessions import SESSION_INDEX, close, cut
from preprocessing.source.lookups import check_items_match, read_items
from preprocessing.steps import Step
from schemas import plugins
from schemas.columns import DAY, END, RESERVED
from schemas.dataset import Dataset
from schemas.errors import InputError, parse, unknown

Named = tuple[str, Step]


@dataclass(frozen=True)
class Plan:
    """What is done to events, in order: read, check, `row_steps`, cut into sessions, `session_steps`, encode."""

    rules: Rules
    row_steps: list[Named]
    session_steps: list[Named]
    features: list[Feature]
    columns: pl.Schema
    """Columns of kept events."""

    @classmethod
    def of(cls, dataset: Dataset, columns: pl.Schema) -> Plan:
        """Build and check for events with these columns, as they are read.

        Raises:
            InputError: for names, options and columns that are not known or do not fit together.
        """
        steps = build_steps(dataset)
        first = next((place for place, (_, step) in enumerate(steps) if step.needs_sessions), len(steps))
        row_steps, session_steps = steps[:first], steps[first:]
        for name, step in session_steps:
            if step.needs_open_events:
                raise InputError(
                    f"steps: {name} cannot follow {steps[first][0]}. It looks at all events of a user's day, but "
                    f"{steps[first][0]} works on sessions that are closed: those still open are set aside before it. "
                    f"Put {name} first."
                )
        rows = pl.LazyFrame(schema=columns)
        for name, step in steps:
            rows = read_through(name, step, rows)
        if dataset.items:
            check_items_match(read_items(dataset), rows)
        rules = Rules.of(dataset, rows.collect_schema())
        rows = rules.without_private(rows)
        for name, step in row_steps:
            rows = apply_through(name, step, rows)
        _check_names(rows.collect_schema())
        _check_duplicates(dataset, rows.collect_schema())
        rows = close(cut(rows, dataset), dataset)
        for name, step in session_steps:
            rows = apply_through(name, step, rows)
        kept = rows.collect_schema()
        sources = pl.Schema({name: dtype for name, dtype in kept.items() if name not in (DAY, END, SESSION_INDEX)})
        _check_labels(dataset, sources)
        return cls(rules, row_steps, session_steps, compile_features(dataset, sources), kept)

    @property
    def dropping(self) -> list[str]:
        """The names of all that may drop rows, in order."""
        names = [*(name for name, _ in self.row_steps), DUPLICATES, *(name for name, _ in self.session_steps)]
        return [*dict.fromkeys(names), SHORT, CUT]

    @property
    def needs_all_rows(self) -> bool:
        """Whether a step looks at other users' rows, so that they cannot be divided into buckets."""
        return any(step.needs_all_rows for _, step in (*self.row_steps, *self.session_steps))

    def read(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """What steps do to columns as events are read; raises InputError where one drops or adds rows."""
        for name, step in (*self.row_steps, *self.session_steps):
            events = read_through(name, step, events, count=True)
        return events


def _check_names(columns: pl.Schema) -> None:
    """What steps add must not be replaced by what preparation itself adds."""
    for name in columns:
        if name in RESERVED:
            raise InputError(
                f"A step adds the column {name!r}, which is Overnight's own ({RESERVED[name]}); give it another name."
            )


def _check_duplicates(dataset: Dataset, columns: pl.Schema) -> None:
    for name in dataset.duplicates if isinstance(dataset.duplicates, tuple) else ():
        if name not in columns:
            raise InputError(f"duplicates: {unknown('column', name, columns)}")


def _check_labels(dataset: Dataset, columns: pl.Schema) -> None:
    for label in dataset.labels:
        name = label.column
        if name not in columns:
            raise InputError(f"labels: {unknown('column', name, columns)} Steps such as label_sessions add columns.")
        dtype = columns[name]
        if not (dtype.is_numeric() or dtype == pl.Boolean):
            raise InputError(
                f"labels: column {name!r} holds {dtype}, but a label is a number or a boolean. The step derive makes a "
                "column that is, such as `bought: event_type = 'purchase'`."
            )


@lru_cache(maxsize=8)
def plan_of(dataset_json: str, columns: tuple[tuple[str, pl.DataType], ...], reads: tuple[str, ...]) -> Plan:
    """The plan, built once a process: item and user tables are read once.

    `reads` are hashes of all that it reads beside the dataset, tables and keys: a process that lives for many nights builds
    anew when one of them changes.
    """
    return Plan.of(Dataset.model_validate_json(dataset_json), pl.Schema(columns))


def build_steps(dataset: Dataset) -> list[tuple[str, Step]]:
    """The dataset's steps by name, ready to apply.

    Raises:
        InputError: for a step or an option that is not known, with the known ones, or one that does not fit the dataset.
    """
    steps: list[tuple[str, Step]] = []
    for entry in dataset.steps:
        step_class = plugins.find(steps_package, entry.name, dataset.plugins)
        step = parse(step_class, entry.options, f"step {entry.name}")
        if step.needs_all_rows and dataset.split == "day":
            raise InputError(
                f"step {entry.name} looks at all users and days, so it needs split: leave_one_out. A dataset that grows by the "
                "day keeps rare items and short sessions out by min_count of features.item_id and sessions.min_length."
            )
        try:
            steps.append((entry.name, step.bind(dataset)))
        except InputError as error:
            raise InputError(f"step {entry.name}: {error}") from None
    return steps
