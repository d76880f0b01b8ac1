"""Days of events become finished days: those not done yet, and again those whose events have changed since.

Days are done in batches: the first night all of history, later nights one day. A batch starts from the state after the days
before it and is fitted day by day whatever its size, so many days at once give what one after the other gives. A day that is
done again changes no id: values that are new in it get ids after all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing.execution.batch import Batch
from preprocessing.execution.run import Run
from preprocessing.features import state as states
from preprocessing.features.state import FeatureState, State
from preprocessing.history import late_items
from preprocessing.history.changes import COUNTED, Changes, Contents, SetAside, asked_for, find_changes
from preprocessing.history.damage import damaged_days, restore_state
from preprocessing.history.later import several
from preprocessing.history.ledger import Ledger, facts_of, files_of
from preprocessing.history.lines import made_with, place_of
from preprocessing.history.noticed import notice
from preprocessing.history.restore import from_day, from_snapshots
from preprocessing.history.set_aside import hashes, in_words, quarantine_rows
from preprocessing.history.states import states_without, write_states
from preprocessing.output import day as output
from preprocessing.output.day import ASIDE, ASIDE_ROWS, OPEN, PART_FIELDS, DayWriter
from preprocessing.output.profile import TABLE, Profiles
from preprocessing.source.index import HASH
from schemas.artifacts import Manifest, identify
from schemas.columns import DAY, ITEM_ID
from schemas.errors import InputError

ONE_DAY = timedelta(days=1)
CHANGED = "its events have changed since it was done"
LATE = "its events have come after those of later days"


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


@dataclass
class Days:
    """The days of a line, and the run that brings them up to date.

    `work` gives batches one after the other; each is to be done, written and entered before the next is asked for.
    """

    run: Run
    ledger: Ledger
    changes: Changes
    missing: dict[date, list[str]] = field(default_factory=dict)
    """Finished days that are lost, source and all, and their lost files."""
    without_quarantine: set[date] = field(default_factory=set)
    """Finished days whose bad rows are lost."""
    _done_again: list[str] = field(default_factory=list)
    """What to say of days that this run did again."""
    _why: dict[date, str] = field(default_factory=dict)
    """Of days to do again: the reason, where it is another than changed events."""

    def work(
        self, last: date, redo: tuple[date, date] | None = None, *, used_from: date | None = None, verify: bool = False
    ) -> Iterator[Work]:
        """What is to be done up to `last`: damaged days, days again (`redo` among them), new days.

        Damage is looked for in the days from `used_from` on; with `verify`, all files of all finished days are read.

        Raises:
            InputError: when `redo` names days that the source no longer holds, or a state is lost for good.
        """
        run, ledger = self.run, self.ledger
        if restore_state(run, ledger, self.changes):
            self.changes = find_changes(run, ledger)
        asked = asked_for(ledger, self.changes, redo) if redo else set()
        self.changes.late = [rows for rows in self.changes.late if rows.day not in asked]
        self._why = late_items.days_to_do_again(run, ledger, self.changes) | dict.fromkeys(asked, "it was asked for")
        until = ledger.about.until
        again = {*ledger.about.pending, *self.changes.changed, *self._why}
        whole = {
            *self.changes.held,
            *self.changes.changed,
            *asked,
        }  # a source may have shrunk since a day was left pending
        again = {day for day in again if until and day <= until and (day in whole or not ledger.has(day))}
        # Kept with every day that is entered: a run that is killed in between leaves the others to the next.
        ledger.change(pending=tuple(sorted(again)))
        if ledger.about.hashed_by != HASH:
            self._hash_anew()
        yield from self._mend(used_from or date.min, verify)
        for aside in (*self.changes.late, *self.changes.undated):
            run.say(in_words(aside, now=until is None or last > until))
        yield from self._again()
        if until is None or last > until:
            yield self._new(last)

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

    def write(self, work: Work) -> None:
        """The artifacts of a batch that is encoded: its days, the states before and after its newest."""
        run, batch = self.run, work.batch
        carried_in = batch.carried.height if batch.carried is not None else 0
        days = batch.days() or [batch.last]
        with run.phase("commit", len(days)) as said, several() as later:
            write_states(batch, work.tail_before, work.tail, days, self.ledger.about.state, later)
            writer = self._writer(batch)
            noticed = notice(run, self.ledger, batch.days(), self._done_again)
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

    def enter(self, work: Work) -> None:
        """Put the days of a batch that is written into the ledger, on disk: from now on they are finished."""
        batch, rows = work.batch, []
        state_before = f"{states.KIND}/{work.tail_before}" if work.tail_before else self.ledger.about.state
        newest_written = max(manifest.facts["day"] for manifest in work.manifests)
        for manifest in work.manifests:
            day = date.fromisoformat(manifest.facts["day"])
            old, is_newest = self.ledger.row(day), day == batch.newest
            parts = [(*part, False) for part in work.contents.get(day, Contents()).parts]
            if manifest.facts["day"] == newest_written:
                parts += [(*aside.part, True) for aside in work.aside]
            parts += [tuple(part.values()) for part in (old["made_of"] if old else []) if part["aside"]]
            before = old["before"] if old else state_before if is_newest else ""
            statistics = work.tail if is_newest or not work.tail_before else work.tail_before
            rows.append(output.row_of(manifest, day, parts, before, f"{states.KIND}/{statistics}"))
        olds = {row[DAY]: self.ledger.row(row[DAY]) for row in rows}
        self.ledger.enter(rows)
        for row in rows:
            if self.ledger.about.until and row[DAY] <= self.ledger.about.until:
                self._follow(row, olds[row[DAY]])
        until = max(batch.last, self.ledger.about.until or batch.last)
        self.ledger.change(state=f"{states.KIND}/{work.tail}", tail=work.tail, until=until)
        self._save()

    def _mend(self, used_from: date, verify: bool) -> Iterator[Work]:
        """Put back or do again the finished days whose files are lost or damaged; those that can be neither are missing."""
        for day, files in damaged_days(self.run.artifacts, self.ledger, used_from, contents=verify).items():
            self.run.artifacts.begin_work()
            row = self.ledger.row(day)
            assert row is not None
            lost = f"{day}: its {', '.join(files)}"
            if snapshot := from_snapshots(self.run.artifacts, row, files, every=day in self.changes.held):
                self.run.say(f"{lost} was missing or damaged; put back from {snapshot}.")
            elif day in self.changes.held:
                self.run.say(f"{lost} is missing or damaged; doing it again.")
                about, days = self.ledger.about, self.ledger.days
                try:
                    work = replace(self._day_again(day), fresh=True)
                except InputError as error:
                    self.missing[day] = files
                    self.run.say(f"{day}: it cannot be done again, and is missing from what follows. {error}")
                    continue
                yield work
                new = self.ledger.row(day)
                if new and from_day(self.run.artifacts, row, new):  # it is what it was: nothing else changes
                    self.ledger.about, self.ledger.days = about, days
                    self._save()
            elif any(path.startswith(output.SESSIONS) for path in files):
                self.missing[day] = files
                self.run.say(
                    f"{lost} is missing or damaged, and the source no longer holds all of its events: the day is missing from "
                    "what follows. Restore the file from a backup."
                )
            elif output.QUARANTINE in files:
                self.without_quarantine.add(day)
                self.run.say(
                    f"{lost} is missing or damaged, and the source no longer holds all of its events: what follows has the day "
                    "without its bad rows. Restore the file from a backup."
                )

    def _again(self) -> Iterator[Work]:
        """The pending days, in order."""
        done: set[date] = set()
        while pending := self.ledger.about.pending:
            day = pending[0]
            before = self.ledger.last_before(day)
            if before and before not in done and before in self.changes.held and self._open_is_lost(before):
                self.run.say(f"{before}: what was open when it ended is lost; doing it again.")
                day = before
                self._why.setdefault(day, "what was open when it ended is lost")
            else:
                again = "doing it again" if self._had_events(day) else "doing it now"
                self.run.say(f"{day}: {self._reason(day)}; {again}.")
            done.add(day)
            try:
                work = self._day_again(day)
            except InputError as error:
                self.run.say(f"{day}: it cannot be done again, and stays as it is. {error}")
                self._drop_pending(day)
            else:
                done_again = "done again" if self._had_events(day) else "done late"
                self._done_again.append(f"{day} was {done_again}: {self._reason(day)}")
                yield work

    def _reason(self, day: date) -> str:
        """Why a day is done that is not new."""
        return self._why.get(day, CHANGED if self._had_events(day) else LATE)

    def _had_events(self, day: date) -> bool:
        """Whether it was made of events of its own: else it had none yet, but may have sessions of the evening before."""
        row = self.ledger.row(day)
        return row is not None and facts_of(row)["rows_in"] > 0

    def _follow(self, new: dict[str, Any], old: dict[str, Any] | None) -> None:
        """What a day that is done again means for others: states kept before later days are stale, the next may follow."""
        day, following = new[DAY], new[DAY] + ONE_DAY
        self._drop_pending(day)
        later = pl.col(DAY) > day
        self.ledger.days = self.ledger.days.with_columns(
            pl.when(later).then(pl.lit("")).otherwise("before").alias("before")
        )
        if not self.ledger.has(following) or _open_hash(new) == _open_hash(old):
            return
        if following in self.changes.held:
            self.ledger.change(pending=tuple(sorted({*self.ledger.about.pending, following})))
            self._why.setdefault(following, f"sessions that reach into it from {day} have changed")
        else:
            self.run.say(
                f"{following}: sessions that reach into it from {day} have changed, but the source no longer holds all of it; "
                "it stays as it is."
            )

    def _hash_anew(self) -> None:
        """After another version of the hash: what unchanged days are made of is what is there, by the hashes of now."""
        whole = self.changes.held - set(self.changes.changed)
        contents = self.changes.contents(min(whole), max(whole)) if whole else {}
        rows = []
        for row in self.ledger.days.iter_rows(named=True):
            if row[DAY] in whole and row[DAY] in contents:
                own = [dict(zip(PART_FIELDS, (*part, False), strict=True)) for part in contents[row[DAY]].parts]
                row["made_of"] = [*own, *(part for part in row["made_of"] if part["aside"])]
            rows.append(row)
        self.ledger.days = pl.DataFrame(rows, schema=self.ledger.days.schema)
        self.ledger.change(hashed_by=HASH)

    def _drop_pending(self, day: date) -> None:
        self.ledger.change(pending=tuple(other for other in self.ledger.about.pending if other != day))

    def _open_is_lost(self, day: date) -> bool:
        """Whether the open events of a day are not as they were written."""
        row = self.ledger.row(day)
        if row is None:
            return False
        folder = self.run.artifacts.root / row["artifact"]
        return any(file.path == OPEN and not file.is_at(folder / OPEN) for file in files_of(row))

    def _new(self, last: date) -> Work:
        """All days after those that are finished, up to `last`."""
        about = self.ledger.about
        first = about.until + ONE_DAY if about.until else self.changes.parts[COUNTED].min()
        assert isinstance(first, date)
        contents = self.changes.contents(first, last)
        aside = [*self.changes.late, *self.changes.undated]
        tail, tails = about.tail or identify(code="", line=about.line), {}
        for number in range((last - first).days + 1):
            day = first + number * ONE_DAY
            more = [rows.part for rows in aside] if day == last else []
            tail = identify(code=tail, day=day, made_of=contents.get(day, Contents()).key(), aside=more)
            tails[day] = tail
        known = State.read(self.run.artifacts, about.state) if about.state else self.run.start()
        batch = self._batch(first, last, contents, known.fitted, known, tail)
        return Work(batch, contents, tails, tails.get(last - ONE_DAY, ""), aside)

    def _day_again(self, day: date) -> Work:
        of_day = self.changes.of(day)
        contents = {day: of_day} if of_day.parts else {}
        tail = identify(code=self.ledger.about.tail, again=day, made_of=of_day.key())
        known = State.read(self.run.artifacts, self.ledger.about.state)
        earlier, others = states_without(self.run, self.ledger, day, known)
        return Work(
            self._batch(day, day, contents, earlier, State(others, {}, known.items), tail), contents, {day: tail}
        )

    def _batch(
        self,
        first: date,
        last: date,
        contents: dict[date, Contents],
        earlier: FeatureState,
        others: State,
        name: str,
    ) -> Batch:
        files = {day: of_day.paths for day, of_day in contents.items()}
        undated = {path: day for day, of_day in contents.items() for path in of_day.undated()}
        carried = self._open_before(first)
        return Batch(self.run, name, first, last, last, files, undated, carried, earlier, others)

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
        bad, rows = [], [hashes(aside)]
        if folder and (folder / ASIDE).is_file():
            bad.append(pl.read_parquet(folder / ASIDE, glob=False))
        if folder and (folder / ASIDE_ROWS).is_file():
            rows.append(pl.read_parquet(folder / ASIDE_ROWS, glob=False))
        if aside:
            bad.append(quarantine_rows(self.run, aside))
        return (pl.concat(bad, how="diagonal_relaxed") if bad else None), pl.concat(rows)

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

    def _save(self) -> None:
        about: dict[str, Any] = {"tables": tuple(sorted(self.run.source.tables.values()))}
        if not self.ledger.about.types:
            self.ledger.freeze(self.run.source.types)
        self.ledger.change(dataset=self.run.dataset.name, source=place_of(self.run.dataset.source), **about)
        self.ledger.write(self.run.artifacts)


def day_writer(batch: Batch, profiles: Profiles) -> DayWriter:
    """What writes the days of a batch that is encoded."""
    run, plan = batch.run, batch.job.plan
    made = made_with(run.dataset, run.source.tables, run.line)
    vocabulary = batch.after.fitted[ITEM_ID]
    return DayWriter(run.artifacts, run.dataset, plan.dropping, batch.frames, batch.account, profiles, vocabulary, made)


def _open_hash(row: dict[str, Any] | None) -> str:
    """A hash of the events of sessions that were open when a day ended; empty when there were none."""
    if row is None or not facts_of(row)["still_open"]:
        return ""
    return next((str(file["sha256"]) for file in row["files"] if file["path"] == OPEN), "")
