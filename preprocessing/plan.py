"""A dataset's rules, steps and features, checked against its columns before any event is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from preprocessing import steps as steps_package
from preprocessing.features.chains import Chain, build_chains
from preprocessing.rules import Rules
from preprocessing.sessions import SESSION_INDEX, close, cut
from preprocessing.source.events import check_items_match, read_items
from preprocessing.steps import Step
from schemas import plugins
from schemas.columns import DAY, END, RESERVED
from schemas.dataset import Dataset
from schemas.errors import InputError, parse, unknown

EVENT_DAY = "event day"  # the local day of an event, or the day it counts to when its time cannot be used
DUPLICATES, SHORT, CUT = "duplicates", "short_sessions", "cut_to_max_length"  # what drops rows beside steps
Named = tuple[str, Step]


@dataclass(frozen=True)
class Recipe:
    """What is done to events, in order: `read` columns, check, `before` sessions are cut, `after`, encode."""

    rules: Rules
    steps: list[Named]
    before: list[Named]
    after: list[Named]
    chains: list[Chain]
    columns: pl.Schema
    """Columns of kept events."""

    @classmethod
    def of(cls, dataset: Dataset, columns: pl.Schema) -> Recipe:
        """Build and check for events with these columns.

        Raises:
            InputError: for names, options and columns that are not known or do not fit together.
        """
        steps = build_steps(dataset)
        for name, step in steps:
            if step.needs_all_rows and dataset.split == "day":
                raise InputError(
                    f"step {name} looks at all users and days, so it needs split: leave_one_out. A dataset that grows by "
                    "the day keeps rare items and short sessions out by min_count of features.item_id and "
                    "sessions.min_length."
                )
        plan = pl.LazyFrame(schema=columns)
        for _, step in steps:
            plan = step.read(plan)
        if dataset.items:
            check_items_match(read_items(dataset), plan)
        rules = Rules.of(dataset, plan.collect_schema())
        plan = rules.without_private(plan)
        before = [(name, step) for name, step in steps if not step.needs_sessions]
        after = [(name, step) for name, step in steps if step.needs_sessions]
        for _, step in before:
            plan = step.apply(plan)
        _check_names(plan.collect_schema())
        plan = close(cut(plan, dataset), dataset)
        for _, step in after:
            plan = step.apply(plan)
        kept = plan.collect_schema()
        sources = pl.Schema({name: dtype for name, dtype in kept.items() if name not in (DAY, END, SESSION_INDEX)})
        _check_labels(dataset, sources)
        return cls(rules, steps, before, after, build_chains(dataset, sources), kept)

    @property
    def names_of_steps(self) -> list[str]:
        """All that may drop rows, in order."""
        steps = [*(name for name, _ in self.before), DUPLICATES, *(name for name, _ in self.after)]
        return [*dict.fromkeys(steps), SHORT, CUT]

    def read(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """What steps do to columns as events are read."""
        for _, step in self.steps:
            events = step.read(events)
        return events


def _check_names(columns: pl.Schema) -> None:
    """What steps add must not be replaced by what preparation itself adds."""
    for name in columns:
        if name in RESERVED:
            raise InputError(
                f"A step adds the column {name!r}, which is Overnight's own ({RESERVED[name]}); give it another name."
            )


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


@lru_cache(maxsize=4)
def recipe_of(dataset_json: str, columns: tuple[tuple[str, pl.DataType], ...], beside: tuple[str, ...]) -> Recipe:
    """The recipe, built once a process: item tables are read once.

    `beside` are hashes of what it holds from elsewhere, tables and keys: a process that lives for many nights builds anew.
    """
    return Recipe.of(Dataset.model_validate_json(dataset_json), pl.Schema(columns))


def build_steps(dataset: Dataset) -> list[tuple[str, Step]]:
    """The dataset's steps by name, ready to apply.

    Raises:
        InputError: for a step or an option that is not known, with the known ones, or one that does not fit the dataset.
    """
    steps: list[tuple[str, Step]] = []
    for entry in dataset.steps:
        step_class = plugins.find(steps_package, entry.name)
        step = parse(step_class, entry.options, f"step {entry.name}")
        try:
            steps.append((entry.name, step.bind(dataset)))
        except InputError as error:
            raise InputError(f"step {entry.name}: {error}") from None
    return steps
