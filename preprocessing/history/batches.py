"""Batches of days: made of the source and the ledger, looked for where a run was killed, and written.

A batch starts from the state after the days before it, and from the events of sessions that were open then.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from preprocessing.execution.batch import Batch
from preprocessing.execution.run import Run
from preprocessing.features import state as states
from preprocessing.features.state import FeatureState, State
from preprocessing.history.changes import COUNTED, Changes, Contents, SetAside
from preprocessing.history.later import several
from preprocessing.history.ledger import Ledger, facts_of
from preprocessing.history.lines import made_with
from preprocessing.history.noticed import notice
from preprocessing.history.set_aside import hashes, quarantine_rows
from preprocessing.history.states import states_without, write_states
from preprocessing.output import day as output
from preprocessing.output.day import ASIDE, ASIDE_ROWS, OPEN, DayWriter
from preprocessing.output.profile import TABLE, Profiles
from schemas.artifacts import Manifest, identify
from schemas.columns import DAY, ITEM_ID

ONE_DAY = timedelta(days=1)


@dataclass
class Work:
    """A batch of days to be done, and what the ledger will say of them."""

    batch: Batch
    contents: dict[date, Contents]
    tails: dict[date, str]
    """The name of each day's artifact: a hash of all that was done up to it."""
    tail_before: str = ""
    """Names the state before the newest day; empty where that is there already."""
    aside: list[SetAside] = field(default_factory=list)
    """Rows for quarantine that no day is made of."""
    manifests: list[Manifest] = field(default_factory=list)
    """The days, once they are written."""
    fresh: bool = False
    """Whether it is to be done even where it is found complete: what was found may be damaged."""

    @property
    def tail(self) -> str:
        """Names the state after the batch."""
        return self.tails[self.batch.last]


@dataclass(frozen=True)
class Batches:
    """Makes and writes the batches of a line."""

    run: Run
    ledger: Ledger

    def new(self, last: date, changes: Changes) -> Work:
        """All days after those that are finished, up to `last`."""
        about = self.ledger.about
        first = about.until + ONE_DAY if about.until else changes.parts[COUNTED].min()
        assert isinstance(first, date)
        contents = changes.contents(first, last)
        aside = [*changes.late, *changes.undated]
        tail, tails = about.tail or identify(code="", line=about.line), {}
        for number in range((last - first).days + 1):
            day = first + number * ONE_DAY
            more = [rows.part for rows in aside] if day == last else []
            tail = identify(code=tail, day=day, made_of=contents.get(day, Contents()).key(), aside=more)
            tails[day] = tail
        known = State.read(self.run.artifacts, about.state) if about.state else self.run.start()
        batch = self._batch(first, last, contents, known.fitted, known, tail)
        return Work(batch, contents, tails, tails.get(last - ONE_DAY, ""), aside)

    def again(self, day: date, changes: Changes) -> Work:
        """A day that is done again, or late.

        Raises:
            InputError: when a state that it needs is lost.
        """
        of_day = changes.of(day)
        contents = {day: of_day} if of_day.parts else {}
        tail = identify(code=self.ledger.about.tail, again=day, made_of=of_day.key())
        known = State.read(self.run.artifacts, self.ledger.about.state)
        earlier, of_other_days = states_without(self.run, self.ledger, day, known)
        return Work(
            self._batch(day, day, contents, earlier, State(of_other_days, {}, known.items), tail), contents, {day: tail}
        )

    def finds(self, work: Work) -> bool:
        """Whether a run that was killed before it could enter a batch left all of it complete; then it has its days."""
        if work.fresh:
            return False
        artifacts = self.run.artifacts
        found = [artifacts.find(states.KIND, state_id) for state_id in (work.tail_before, work.tail) if state_id]
        days = [date.fromisoformat(day) for state in found if state for day in state.facts["days"]]
        manifests = [artifacts.find(output.KIND, work.tails[day]) for day in days if day in work.tails]
        if None in found or None in manifests or not days:
            return False
        work.manifests = [manifest for manifest in manifests if manifest]
        return True

    def write(self, work: Work, done_again: Sequence[str]) -> None:
        """The artifacts of a batch that is encoded: its days, the states before and after its newest.

        `done_again` is what to say of days that the run did again.
        """
        run, batch = self.run, work.batch
        carried_in = batch.carried.height if batch.carried is not None else 0
        days = batch.days() or [batch.last]
        with run.phase("commit", len(days)) as said, several() as later:
            write_states(batch, work.tail_before, work.tail, days, self.ledger.about.state, later)
            writer = self._writer(batch)
            noticed = notice(run, self.ledger, batch.days(), done_again)
            written: list[Future[Manifest]] = []
            for day in days:
                aside = self._set_aside(day, work.aside if day == days[-1] else [])
                more, files = noticed.of(day), batch.session_files(day)
                parts = writer.gather(day, work.tails[day], files, carried_in, *aside, **more)
                written.append(later(writer.put, parts))
                carried_in = parts.still_open
            for number, (day, manifest) in enumerate(zip(days, written, strict=True), start=1):
                work.manifests.append(manifest.result())
                for warning in manifest.result().facts["warnings"]:
                    run.say(f"{day}: {warning}")
                run.tick("commit", number, len(days))
            said(f"{len(days)} days" if len(days) != 1 else str(days[0]))
        batch.clean_up()

    def _batch(
        self,
        first: date,
        last: date,
        contents: dict[date, Contents],
        earlier: FeatureState,
        of_other_days: State,
        name: str,
    ) -> Batch:
        files = {day: of_day.paths for day, of_day in contents.items()}
        undated = {path: day for day, of_day in contents.items() for path in of_day.undated()}
        carried = self._open_before(first)
        return Batch(self.run, name, first, last, last, files, undated, carried, earlier, of_other_days)

    def _writer(self, batch: Batch) -> DayWriter:
        profiles = Profiles.of(
            batch.frames, self.run.dataset, batch.job.plan.features, self._folders_before(batch.first)
        )
        return day_writer(batch, profiles)

    def _set_aside(self, day: date, aside: list[SetAside]) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
        """Rows for a day's quarantine that its batch did not read, and the hashes of those that have a day.

        Of a day that is done again, those that it has stay.
        """
        row = self.ledger.row(day)
        folder = self.run.artifacts.root / row["artifact"] if row else None
        bad, rows = [], [hashes(aside)] if aside else []
        if folder and (folder / ASIDE).is_file():
            bad.append(pl.read_parquet(folder / ASIDE, glob=False))
        if folder and (folder / ASIDE_ROWS).is_file():
            rows.append(pl.read_parquet(folder / ASIDE_ROWS, glob=False))
        if aside:
            bad.append(quarantine_rows(self.run, aside))
        return (pl.concat(bad, how="diagonal_relaxed") if bad else None), (pl.concat(rows) if rows else None)

    def _folders_before(self, first: date) -> list[Path]:
        """Of the days that a day is compared with, as far as they are there."""
        rows = self.ledger.between(first - self.run.dataset.profile.days * ONE_DAY, first - ONE_DAY)
        folders = [self.run.artifacts.root / name for name in rows["artifact"]]
        return [folder for folder in folders if (folder / TABLE).is_file()]

    def _open_before(self, first: date) -> pl.DataFrame | None:
        """Events of sessions that were open when a day began.

        Raises:
            InputError: when they are lost.
        """
        day = self.ledger.last_before(first)
        if day is None:
            return None
        row = self.ledger.row(day)
        assert row is not None
        if not (still_open := facts_of(row)["still_open"]):
            return None
        file = self.run.artifacts.root / row["artifact"] / OPEN
        try:
            waiting = pl.read_parquet(file, glob=False)
        except (OSError, pl.exceptions.PolarsError):
            self.run.say(
                f"{day}: its open events are lost ({file}): {still_open:,} events of sessions that reach into the next day."
            )
            return None
        return waiting.filter(pl.col(DAY) >= first).drop(DAY)


def day_writer(batch: Batch, profiles: Profiles) -> DayWriter:
    """What writes the days of a batch that is encoded."""
    run, plan = batch.run, batch.job.plan
    made = made_with(run.dataset, run.source.tables, run.line)
    vocabulary = batch.after.fitted[ITEM_ID]
    return DayWriter(run.artifacts, run.dataset, plan.dropping, batch.frames, batch.account, profiles, vocabulary, made)
