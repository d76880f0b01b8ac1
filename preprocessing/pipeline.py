"""Prepare a dataset: events in, sessions by day, id maps and a feature schema out.

    read -> check (quarantine) -> steps -> sort, cut -> steps -> length -> fit on training rows -> encode -> write

Every row is accounted for: rows read = events written + rows in quarantine + rows dropped, by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing import checks, tables
from preprocessing.engine import collect, collect_all
from preprocessing.events import check_items_match, read_events, read_items
from preprocessing.features import TRAINING, Chain, Fitted, build_chains, fit, mark_training, transform
from preprocessing.files import fingerprints, reading
from preprocessing.sessions import (
    SESSION_INDEX,
    cut,
    drop_short,
    ends_of_sessions,
    keep_recent,
    local_day,
    sort_and_deduplicate,
)
from preprocessing.steps import Step, build_steps
from preprocessing.window import Window, choose_window
from schemas.artifacts import Artifacts, Manifest, code_version, identify
from schemas.columns import DAY, LENGTH, SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset
from schemas.errors import InputError

KIND = "sessions"
NO_EFFECT = {"source", "title", "obtain", "terms", "defaults"}  # parts of a dataset that sessions do not depend on


def prepare(
    artifacts: Artifacts,
    dataset: Dataset,
    *,
    until: date | None = None,
    days: int | None = None,
    progress: Callable[[str], None] = print,
    now: datetime | None = None,
) -> Manifest:
    """Sessions of `dataset` up to the test day `until` (the last full day if left out), of its last `days` days.

    Found complete from an earlier run, they are returned at once. `now` is for tests.

    Raises:
        InputError: for a source, a dataset or days that do not fit; nothing is left behind.
    """
    now = now or datetime.now(UTC)
    events = read_events(dataset)
    with reading(dataset.source):
        if collect(events.head(1)).is_empty():
            raise InputError(f"{dataset.source} holds no events: its files have no rows.")
    recipe = Recipe.of(dataset, events)
    sources = fingerprints(dataset)
    with reading(dataset.source):
        window = choose_window(events, dataset, now, until, days)
    test_day = str(window.last) if window.last else None
    parameters = {"dataset": dataset.model_dump(mode="json", exclude=NO_EFFECT), "until": test_day, "days": days}
    parents = tuple(sources.values())
    here = Path(__file__).parent
    artifact_id = identify(code=code_version(here, here.parent / "schemas"), parents=parents, **parameters)
    found = artifacts.find(KIND, artifact_id)
    if found:
        progress(f"sessions of {dataset.name} are there already: {found.folder}")
        return found
    with artifacts.write(KIND, artifact_id, parents=parents, parameters=parameters) as draft:
        run = Run(dataset, recipe, window, draft.folder, progress)
        draft.facts = {"sources": sources, **run.facts(events, now)}
    return draft.manifest


@dataclass(frozen=True)
class Recipe:
    """The dataset's steps and features, checked against its columns before any event is read."""

    before: list[tuple[str, Step]]
    after: list[tuple[str, Step]]
    chains: list[Chain]
    items: pl.LazyFrame | None

    @classmethod
    def of(cls, dataset: Dataset, events: pl.LazyFrame) -> Recipe:
        """Build and check. Raises InputError."""
        items = read_items(dataset) if dataset.items else None
        if items is not None:
            check_items_match(items, events)
        steps = build_steps(dataset)
        before = [(name, step) for name, step in steps if not step.needs_sessions]
        after = [(name, step) for name, step in steps if step.needs_sessions]
        plan = events
        for _, step in before:
            plan = step.apply(plan)
        plan = cut(plan, dataset)
        for _, step in after:
            plan = step.apply(plan)
        return cls(before, after, build_chains(dataset, plan.collect_schema()), items)


@dataclass
class Run:
    """One preparation: its inputs, and the account of rows and seconds it keeps."""

    dataset: Dataset
    recipe: Recipe
    window: Window
    folder: Path
    progress: Callable[[str], None]
    rows_in: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    clock: float = field(default_factory=time.perf_counter)

    def facts(self, source: pl.LazyFrame, now: datetime) -> dict[str, Any]:
        """Run all phases and tell what came out."""
        # One name for all, so that a phase's rows are freed when the next one has made its own.
        events = self.read(source)
        events = self.check(events, now)
        events, ends = self.clean(events)
        events, fitted = self.fit(events, ends)
        events = self.encode(events, fitted)
        return self.write(events, fitted, ends)

    def read(self, source: pl.LazyFrame) -> pl.DataFrame:
        """All events, in memory."""
        with reading(self.dataset.source):
            events = collect(source)
        self.rows_in = events.height
        self._done("read", f"{events.height:,} events")
        return events

    def check(self, events: pl.DataFrame, now: datetime) -> pl.DataFrame:
        """Set bad rows aside."""
        rules = checks.rules(self.dataset, events.columns, now, self.recipe.items)
        good, bad, self.quarantined = checks.split(events, rules)
        tables.write_quarantine(bad, self.folder)
        self._done("check", f"{bad.height:,} to quarantine{_listed(self.quarantined)}")
        return good

    def clean(self, events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Steps, order, sessions, lengths; returns events with `session_index`, and the end and day of each session."""
        dataset, dated = self.dataset, TIMESTAMP in self.dataset.events.columns
        if dated:
            # Given sessions may run past midnight: whether one is inside is known when it is whole.
            window = Window(self.window.first, None) if dataset.sessions.rule == "given" else self.window
            if window != Window():
                day = local_day(pl.col(TIMESTAMP), dataset.time_zone)
                events = self._keep("outside_window", events, events.lazy().filter(window.holds(day)))
        for name, step in self.recipe.before:
            events = self._keep(name, events, step.apply(events.lazy()))
        ordered = sort_and_deduplicate(events, dataset)
        events = self._keep("duplicates", events, ordered.lazy())
        events = collect(cut(events.lazy(), dataset))
        ends = collect(ends_of_sessions(events.lazy(), dataset))
        if dated and self.window.last:
            late = ends.lazy().filter(~self.window.holds(pl.col(DAY))).select(SESSION_INDEX)
            inside = events.lazy().join(late, on=SESSION_INDEX, how="anti", maintain_order="left")
            events = self._keep("outside_window", events, inside)
        for name, step in self.recipe.after:
            events = self._keep(name, events, step.apply(events.lazy()))
        events = self._keep("short_sessions", events, drop_short(events.lazy(), dataset.sessions.min_length))
        events = self._keep("cut_to_max_length", events, keep_recent(events.lazy(), dataset.sessions.max_length))
        self._done("clean", f"{events.height:,} events kept{_listed(self.dropped)}")
        return events, ends

    def fit(self, events: pl.DataFrame, ends: pl.DataFrame) -> tuple[pl.DataFrame, list[Fitted]]:
        """Fit the encoders on training rows; returns the events with the column `training`, and what was learnt."""
        test = ends.lazy().filter(pl.col(DAY).eq_missing(self.window.last)).select(SESSION_INDEX)
        marked = collect(mark_training(events.lazy(), self.dataset, test))
        fraction = marked[TRAINING].mean()
        if not fraction:
            raise InputError(
                f"No session to train on is left before the test day {self.window.last}: {self._account()}"
            )
        if fraction == 1:
            raise InputError(f"No session ends on the test day {self.window.last}; give another. {self._account()}")
        fitted = fit(marked.lazy(), self.recipe.chains)
        sizes = (f"{one.chain.name} {one.chain.encoders[-1].cardinality(one.tables[-1]) or 'number'}" for one in fitted)
        self._done("fit", "features: " + ", ".join(sizes))
        return marked, fitted

    def encode(self, events: pl.DataFrame, fitted: list[Fitted]) -> pl.DataFrame:
        """Ids and numbers in place of values."""
        keep = [name for name in (SESSION_INDEX, SESSION_ID, USER_ID, TIMESTAMP, TRAINING) if name in events.columns]
        encoded = collect(transform(events.lazy(), fitted, keep))
        self._done("encode", f"{len(fitted)} features of {events.height:,} events")
        return encoded

    def write(self, encoded: pl.DataFrame, fitted: list[Fitted], ends: pl.DataFrame) -> dict[str, Any]:
        """Group into sessions, write everything; returns the facts."""
        names = [one.chain.name for one in fitted]
        dated = TIMESTAMP in self.dataset.events.columns
        grouped = tables.group(encoded.lazy(), self.dataset, names)
        sessions, items = collect_all(
            [
                tables.in_order_of_time(grouped, ends.lazy(), names),
                tables.item_table(encoded.lazy(), fitted[0], names[1:], dated),
            ]
        )
        written = tables.write_sessions(sessions, self.folder)
        tables.write_features(self.dataset, fitted, items, self.folder)
        self._done("write", f"{sessions.height:,} sessions of {len(written)} days")
        return self._facts(sessions, items.height, written)

    def _facts(self, sessions: pl.DataFrame, num_items: int, written: dict[str, int]) -> dict[str, Any]:
        by_day = self.dataset.split == "day"
        test_day = str(self.window.last) if by_day else None
        test_sessions = written.get(test_day, 0) if test_day else sessions.height
        return {
            "rows_in": self.rows_in,
            "quarantined": self.quarantined,
            "dropped": self.dropped,
            "sessions": sessions.height,
            "events": int(sessions[LENGTH].sum()),
            "items": num_items,
            "users": sessions[USER_ID].n_unique(),
            "days": written,
            "first_day": next(iter(written)) if TIMESTAMP in self.dataset.events.columns else None,
            "test_day": test_day,
            "train_sessions": sessions.height - test_sessions if by_day else sessions.height,
            "test_sessions": test_sessions,
            "seconds": self.seconds,
        }

    def _keep(self, name: str, events: pl.DataFrame, plan: pl.LazyFrame) -> pl.DataFrame:
        left = collect(plan)
        if left.height > events.height:
            raise InputError(f"step {name} made {left.height:,} rows of {events.height:,}; a step may only drop rows.")
        self.dropped[name] = self.dropped.get(name, 0) + events.height - left.height
        if not left.height:
            raise InputError(f"No rows are left: {self._account()}")
        return left

    def _account(self) -> str:
        return f"of {self.rows_in:,} rows{_listed({**self.quarantined, **self.dropped}) or ' none was dropped'}."

    def _done(self, phase: str, what: str) -> None:
        now = time.perf_counter()
        self.seconds[phase], self.clock = round(now - self.clock, 3), now
        self.progress(f"{phase}: {what} ({self.seconds[phase]:.1f} s)")


def _listed(counts: dict[str, int]) -> str:
    told = [f"{name} {count:,}" for name, count in counts.items() if count]
    return f": {', '.join(told)}" if told else ""
