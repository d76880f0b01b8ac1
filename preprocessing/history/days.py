"""Days of events become finished days: those not done yet, and again those whose events have changed since.

Days are done in batches: the first night all of history, later nights one day. A batch starts from the state after the days
before it and is fitted day by day whatever its size, so many days at once give what one after the other gives. A day that is
done again changes no id: values that are new in it get ids after all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import polars as pl

from preprocessing.execution.run import Run
from preprocessing.features import state as states
from preprocessing.history import late_items
from preprocessing.history.batches import ONE_DAY, Batches, Work
from preprocessing.history.changes import Changes, Contents, asked_for, find_changes
from preprocessing.history.damage import damaged_days, restore_state
from preprocessing.history.ledger import Ledger, facts_of, files_of
from preprocessing.history.lines import place_of
from preprocessing.history.restore import from_day, from_snapshots
from preprocessing.history.set_aside import in_words
from preprocessing.output import day as output
from preprocessing.output.day import OPEN, PART_FIELDS
from preprocessing.source.index import HASH
from schemas.columns import DAY
from schemas.errors import InputError

CHANGED = "its events have changed since it was done"
LATE = "its events have come after those of later days"


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
    batches: Batches = field(init=False)
    _done_again: list[str] = field(default_factory=list)
    """What to say of days that this run did again."""
    _why: dict[date, str] = field(default_factory=dict)
    """Of days to do again: the reason, where it is another than changed events."""

    def __post_init__(self) -> None:
        self.batches = Batches(self.run, self.ledger)

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
            yield self.batches.new(last, self.changes)

    def finds(self, work: Work) -> bool:
        """Whether a run that was killed before it could enter a batch left all of it complete; then it has its days."""
        return self.batches.finds(work)

    def write(self, work: Work) -> None:
        """The artifacts of a batch that is encoded."""
        self.batches.write(work, self._done_again)

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
                    work = replace(self.batches.again(day, self.changes), fresh=True)
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
                work = self.batches.again(day, self.changes)
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

    def _save(self) -> None:
        about: dict[str, Any] = {"tables": tuple(sorted(self.run.source.tables.values()))}
        if not self.ledger.about.types:
            self.ledger.freeze(self.run.source.types)
        self.ledger.change(dataset=self.run.dataset.name, source=place_of(self.run.dataset.source), **about)
        self.ledger.write(self.run.artifacts)


def _open_hash(row: dict[str, Any] | None) -> str:
    """A hash of the events of sessions that were open when a day ended; empty when there were none."""
    if row is None or not facts_of(row)["still_open"]:
        return ""
    return next((str(file["sha256"]) for file in row["files"] if file["path"] == OPEN), "")
