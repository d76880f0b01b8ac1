"""Days of events become finished days: those not done yet, and again those whose events have changed since.

Days are done in batches: the first night all of history, later nights one day. A batch starts from the state after the days
before it and is fitted day by day whatever its size, so many days at once give what one after the other gives. A day that is
done again changes no id: values that are new in it get ids after all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing.encoders.category import Category
from preprocessing.execution.batch import Batch, Done, Run
from preprocessing.features import state as states
from preprocessing.features.state import (
    FeatureState,
    State,
    Statistics,
    encoders_by_state,
    state_as_of,
    without_day,
)
from preprocessing.history.changes import Changes, Contents, SetAside
from preprocessing.history.ledger import Ledger, facts_of
from preprocessing.history.lines import made_with, place_of
from preprocessing.history.restore import from_day
from preprocessing.history.set_aside import TOO_LATE, quarantine_rows
from preprocessing.history.states import all_statistics
from preprocessing.output import day as output
from preprocessing.output.day import OPEN, DayWriter
from preprocessing.output.profile import TABLE, Profiles
from preprocessing.vocabulary import recount
from schemas.artifacts import Manifest, identify
from schemas.columns import COUNT, DAY, ITEM_ID, RULE, VALUE
from schemas.errors import InputError

ONE_DAY = timedelta(days=1)


@dataclass
class Days:
    """The days of a line, and the run that brings them up to date."""

    run: Run
    ledger: Ledger
    changes: Changes
    _statistics: Statistics | None = field(default=None, repr=False)

    def do_again(self, days: Iterable[date], why: dict[date, str]) -> None:
        """Do finished days again, in order, and the day after each whose open sessions are others then.

        `why` says of some what the reason is, for the line that names them.
        """
        waiting = set(days)
        while waiting:
            day = min(waiting)
            waiting.remove(day)
            reason = why.get(day, "its events have changed since it was done")
            self.run.say(f"{day}: {reason}; doing it again.")
            before = self._open_file(day)
            self._do_again(day)
            following = day + ONE_DAY
            if self.ledger.has(following) and self._open_file(day) != before:
                if following in self.changes.held:
                    waiting.add(following)
                else:
                    self.run.say(
                        f"{following}: sessions that reach into it from {day} have changed, but the source no longer holds all "
                        "of it; it stays as it is."
                    )

    def mend(self, day: date, files: list[str]) -> None:
        """Do a damaged day again. Where that gives what it was, its files are put back and nothing else changes."""
        row, about, days = self.ledger.row(day), self.ledger.about, self.ledger.days
        assert row is not None
        self.run.say(f"{day}: its {', '.join(files)} is missing or damaged; doing it again.")
        open_before = self._open_file(day)
        self._do_again(day)
        new = self.ledger.row(day)
        if new and from_day(self.run.artifacts, row, new):
            self.ledger.about, self.ledger.days = about, days
            self._save()
        elif self.ledger.has(day + ONE_DAY) and self._open_file(day) != open_before:
            self.do_again([day + ONE_DAY], {day + ONE_DAY: f"sessions that reach into it from {day} are others"})

    def do_new(self, last: date) -> None:
        """All days after those that are finished, up to `last`."""
        until = self.ledger.about.until
        first = until + ONE_DAY if until else self.changes.parts["counted"].min()
        assert isinstance(first, date)
        contents = self.changes.contents(first, last)
        aside = [*self.changes.late, *self.changes.undated]
        tail, tails = self.ledger.about.tail or identify(code="", line=self.ledger.about.line), {}
        for number in range((last - first).days + 1):
            day = first + number * ONE_DAY
            more = [one.part for one in aside] if day == last else []
            tail = identify(code=tail, day=day, made_of=contents.get(day, Contents()).key(), aside=more)
            tails[day] = tail
        name = self.ledger.about.state
        known = State.read(self.run.artifacts, name) if name else self.run.start()
        batch = self._batch(first, last, contents, known.fitted, known)
        self._finish(batch, contents, tails, tails.get(last - ONE_DAY, ""), aside)
        self.ledger.change(until=last)
        self._save()

    def _do_again(self, day: date) -> None:
        contents = {day: self.changes.of(day)} if self.changes.of(day).parts else {}
        key = contents.get(day, Contents()).key()
        tail = identify(code=self.ledger.about.tail, again=day, made_of=key)
        known = State.read(self.run.artifacts, self.ledger.about.state)
        earlier, others = self._without(day, known)
        batch = self._batch(day, day, contents, earlier, State(others, {}, known.items))
        self._finish(batch, contents, {day: tail}, "", [])
        self._save()

    def _batch(
        self, first: date, last: date, contents: dict[date, Contents], earlier: FeatureState, others: State
    ) -> Batch:
        files = {day: of_day.paths for day, of_day in contents.items()}
        undated = {path: day for day, of_day in contents.items() for path in of_day.undated()}
        return Batch(self.run, first, last, last, files, undated, self._open_before(first), earlier, others)

    def _finish(
        self,
        batch: Batch,
        contents: dict[date, Contents],
        tails: dict[date, str],
        tail_before: str,
        aside: list[SetAside],
    ) -> None:
        """Do a batch, unless it is found complete, and enter its days into the ledger."""
        tail = tails[batch.last]
        manifests = self._found(tails, [tail_before, tail])
        if manifests is None:
            manifests = self._do(batch, tails, tail_before, aside)
        state_before = f"{states.KIND}/{tail_before}" if tail_before else self.ledger.about.state
        rows = []
        for manifest in manifests:
            day = date.fromisoformat(manifest.facts["day"])
            parts = list(contents.get(day, Contents()).parts)
            if aside and day == _home(batch, manifests):
                parts += [one.part for one in aside]
            is_newest = day == batch.newest
            old = self.ledger.row(day)
            before = old["before"] if old else state_before if is_newest else ""
            statistics = tail if is_newest or not tail_before else tail_before
            rows.append(output.row_of(manifest, day, parts, before, f"{states.KIND}/{statistics}"))
        self.ledger.enter(rows)
        self.ledger.change(state=f"{states.KIND}/{tail}", tail=tail)
        self._statistics = None

    def _do(self, batch: Batch, tails: dict[date, str], tail_before: str, aside: list[SetAside]) -> list[Manifest]:
        run, tail = self.run, tails[batch.last]
        done = batch.do(tail)
        manifests: list[Manifest] = []
        carried_in = batch.carried.height if batch.carried is not None else 0
        days = done.days() or [batch.last]
        with run.phase("commit", len(days)) as said:
            writer = self._writer(batch, done)
            for number, day in enumerate(days, start=1):
                extra = quarantine_rows(run, aside) if aside and day == days[-1] else None
                kept_late = self._late_rows(day)
                bad = [table for table in (extra, kept_late) if table is not None]
                further = pl.concat(bad, how="diagonal_relaxed") if bad else None
                manifest = writer.write(day, tails[day], done.session_files(day), carried_in, further)
                manifests.append(manifest)
                for warning in manifest.facts["warnings"]:
                    run.say(f"{day}: {warning}")
                carried_in = manifest.facts["still_open"]
                run.tick("commit", number, len(days))
            listed = [str(day) for day in days]
            if tail_before:
                earlier = [day for day in listed if day < str(batch.newest)]
                done.before.write(run.artifacts, tail_before, {"days": earlier, "previous": self.ledger.about.state})
            rest = [day for day in listed if not tail_before or day >= str(batch.newest)]
            previous = f"{states.KIND}/{tail_before}" if tail_before else self.ledger.about.state
            done.after.write(run.artifacts, tail, {"days": rest, "previous": previous})
            said(f"{len(listed)} days" if len(listed) != 1 else listed[0])
        done.clean_up()
        return manifests

    def _writer(self, batch: Batch, done: Done) -> DayWriter:
        run, plan = self.run, done.job.plan
        profiles = Profiles.of(done.frames, run.dataset, plan.features, self._folders_before(batch.first))
        vocabulary = done.after.fitted[ITEM_ID]
        made = made_with(run.dataset, run.source.tables)
        return DayWriter(run.artifacts, run.dataset, plan, done.frames, done.account, profiles, vocabulary, made)

    def _late_rows(self, day: date) -> pl.DataFrame | None:
        """Of a day that is done again: the rows that came too late for others and are kept in its quarantine."""
        row = self.ledger.row(day)
        if row is None or TOO_LATE not in facts_of(row)["quarantined"]:
            return None
        try:
            bad = pl.read_parquet(self.run.artifacts.root / row["artifact"] / output.QUARANTINE)
        except (OSError, pl.exceptions.PolarsError):
            return None
        return bad.filter(pl.col(RULE) == TOO_LATE)

    def _found(self, tails: dict[date, str], state_ids: list[str]) -> list[Manifest] | None:
        """The days of a batch that a run which was killed before it could enter them left complete; else None."""
        artifacts = self.run.artifacts
        found = [artifacts.find(states.KIND, state_id) for state_id in state_ids if state_id]
        days = [date.fromisoformat(day) for state in found if state for day in state.facts["days"]]
        manifests = [artifacts.find(output.KIND, tails[day]) for day in days if day in tails]
        if None in found or None in manifests or not days:
            return None
        return [manifest for manifest in manifests if manifest]

    def _folders_before(self, first: date) -> list[Path]:
        """Of the days that a day is compared with, as far as they are there."""
        since = first - self.run.dataset.profile.days * ONE_DAY
        rows = self.ledger.days.filter((pl.col(DAY) >= since) & (pl.col(DAY) < first))
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
        file = self.run.artifacts.root / row["artifact"] / OPEN
        try:
            waiting = pl.read_parquet(file)
        except (OSError, pl.exceptions.PolarsError):
            lost = facts_of(row)["still_open"]
            self.run.say(
                f"{day}: its open events are lost ({file}): {lost:,} events of sessions that reach into the next day."
            )
            return None
        return waiting.filter(pl.col(DAY) >= first).drop(DAY)

    def _open_file(self, day: date) -> str:
        """A hash of the events of sessions that were open when a day ended."""
        row = self.ledger.row(day)
        files = {file["path"]: file["sha256"] for file in row["files"]} if row else {}
        return files.get(OPEN, "") if row and facts_of(row)["still_open"] else ""

    def _without(self, day: date, known: State) -> tuple[FeatureState, FeatureState]:
        """What is fitted to the days before a day, and to all days but this one, with the ids of now."""
        row = self.ledger.row(day)
        if row and row["before"] and day == self.ledger.days[DAY].max():
            try:
                before = State.read(self.run.artifacts, row["before"])
            except InputError:
                pass
            else:
                return before.fitted, self._with_ids(before.fitted, known)
        if self._statistics is None:
            self._statistics = all_statistics(self.run.artifacts, self.ledger)
        features, start = self.run.plan.features, self.run.start().fitted
        earlier = state_as_of(features, day, self._statistics, known.fitted, start)
        return earlier, without_day(features, day, self._statistics, known.fitted, start)

    def _with_ids(self, fitted: FeatureState, known: State) -> FeatureState:
        """An earlier state with the ids of now, and what does not depend on days as it is now."""
        encoders, now = encoders_by_state(self.run.plan.features), dict(known.fitted)
        for name, table in known.fitted.items():
            encoder = encoders.get(name)
            if isinstance(encoder, Category):
                counted = fitted[name].select(VALUE, COUNT) if name in fitted else table.select(VALUE, COUNT).clear()
                now[name] = recount(table, counted)
            elif encoder is not None and encoder.by_day:
                if name in fitted:
                    now[name] = fitted[name]
                else:
                    now.pop(name)
        return now

    def _save(self) -> None:
        about: dict[str, Any] = {"tables": tuple(sorted(self.run.source.tables.values()))}
        if not self.ledger.about.types:
            self.ledger.freeze(self.run.source.types)
        self.ledger.change(dataset=self.run.dataset.name, source=place_of(self.run.dataset.source), **about)
        self.ledger.write(self.run.artifacts)


def _home(batch: Batch, manifests: list[Manifest]) -> date:
    """The day whose quarantine takes what was set aside: the last that the batch has."""
    return max((date.fromisoformat(manifest.facts["day"]) for manifest in manifests), default=batch.last)
