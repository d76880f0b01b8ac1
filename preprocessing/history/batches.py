"""Days of events become days of sessions: those not done yet, and again those whose events have changed since.

Days are done in batches: the first night all of history, later nights one day. A batch knows what earlier days taught and
learns day by day whatever its size, so many days at once give what one after the other gives, to the byte. A day that is
done again because events came late changes no id: what is new in it is learnt after everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from preprocessing.execution import batch as batches
from preprocessing.execution.batch import OPEN, Batch, Contents, Run
from preprocessing.features import state as states
from preprocessing.features.state import State, Statistics, state_as_of, without_day
from preprocessing.history.ledger import Done, Ledger
from preprocessing.plan import EVENT_DAY
from schemas.artifacts import identify
from schemas.columns import DAY

ONE_DAY = timedelta(days=1)


@dataclass
class Days:
    """The days of a lineage, and the run that brings them up to date."""

    run: Run
    lineage: str
    ledger: Ledger
    on_the_side: bool = False
    """Whether the ledger is not to be kept."""

    def up_to(self, last: date) -> Ledger:
        """The ledger once all days up to `last` are done, with what was known before `last`."""
        contents = self.run.source.inventory.contents()
        if since := self.run.dataset.since:
            contents = {day: found for day, found in contents.items() if day >= since}
        self._do_changed(contents)
        if self.ledger.until is None or last > self.ledger.until:
            self._do_new(last, contents)
        if last in self.ledger.before:
            return self.ledger
        # A day in the middle of an earlier batch: what was known before it was not kept. Do it all again, on the side.
        aside = Days(self.run, self.lineage, Ledger(), on_the_side=True)
        aside._do_new(last, contents)
        return aside.ledger

    def _do_new(self, last: date, contents: Contents) -> None:
        """All days after those that are done."""
        first = self.ledger.until + ONE_DAY if self.ledger.until else min(contents)
        these = {day: contents[day] for day in sorted(contents) if first <= day <= last}
        tail, tails = self.ledger.tail or self._root(), {}
        for number in range((last - first).days + 1):
            day = first + number * ONE_DAY
            tails[day] = tail = identify(
                code=tail, day=day, contents=these.get(day, ("",))[0], tables=self.run.source.tables
            )
        known = State.read(self.run.artifacts, self.ledger.known) if self.ledger.known else self.run.start()
        batch = Batch(self.run, first, last, last, these, self._open_before(first), known.fitted, known)
        self._finish(batch, tails, tails.get(last - ONE_DAY, ""))
        self.ledger.until = last
        self._save()

    def _do_changed(self, contents: Contents) -> None:
        """Days that were done but whose events are others now, and the day after, if other sessions reach into it."""
        until = self.ledger.until
        if until is None:
            return
        none = Done(artifact="", contents="", taught="")
        changed = {
            day
            for day, (now, _) in contents.items()
            if day <= until and self.ledger.days.get(day, none).contents != now
        }
        while changed:
            day = min(changed)
            changed.remove(day)
            self.run.progress(f"{day}: its events have changed since it was done; doing it again.")
            before = self._open_after(day)
            self._do_again(day, contents)
            if day < until and not self._open_after(day).equals(before):
                changed.add(day + ONE_DAY)

    def _do_again(self, day: date, contents: Contents) -> None:
        these = {day: contents[day]} if day in contents else {}
        tail = identify(
            code=self.ledger.tail, again=day, contents=these.get(day, ("",))[0], tables=self.run.source.tables
        )
        known = State.read(self.run.artifacts, self.ledger.known)
        taught = self._taught()
        features = self.run.recipe.chains
        earlier = state_as_of(features, day, taught, known.fitted)
        others = without_day(features, day, taught, known.fitted)
        batch = Batch(
            self.run,
            day,
            day,
            day,
            these,
            self._open_before(day),
            earlier,
            State(others, {}, known.items, known.columns),
        )
        self._finish(batch, {day: tail}, "")
        self._save()

    def _finish(self, batch: Batch, tails: dict[date, str], tail_before: str) -> None:
        """Do a batch, unless it is found complete, and enter it into the ledger."""
        artifacts, tail = self.run.artifacts, tails[batch.last]
        if not self._is_done(tails, [tail_before, tail]):
            done = batch.do(tail)
            before, after = done.states()
            listed, carried_in = {}, batch.carried.height if batch.carried is not None else 0
            with self.run.phase("write") as told:
                profiles = done.profiles(self._folders_before(batch.first))
                for day in done.days():
                    manifest = done.write_day(artifacts, day, tails[day], carried_in, after, profiles)
                    for warning in manifest.facts["warnings"]:
                        self.run.progress(f"{day}: {warning}")
                    carried_in = manifest.facts["still_open"]
                    listed[str(day)] = batch.contents.get(day, ("",))[0]
                if tail_before:
                    earlier = {day: found for day, found in listed.items() if day < str(batch.newest)}
                    before.write(artifacts, tail_before, {"days": earlier})
                rest = {day: found for day, found in listed.items() if not tail_before or day >= str(batch.newest)}
                after.write(artifacts, tail, {"days": rest})
                told(f"{len(listed)} days" if len(listed) != 1 else f"{batch.last}")
            done.clean_up()
        self._enter(batch, tails, tail_before)

    def _is_done(self, tails: dict[date, str], state_ids: list[str]) -> bool:
        """Whether a run that was killed before it could enter a batch into the ledger left all of it complete."""
        artifacts = self.run.artifacts
        found = [artifacts.find(states.KIND, state_id) for state_id in state_ids if state_id]
        days = [day for state in found if state for day in state.facts["days"]]
        return None not in found and all(artifacts.find(batches.KIND, tails[date.fromisoformat(day)]) for day in days)

    def _enter(self, batch: Batch, tails: dict[date, str], tail_before: str) -> None:
        ledger, artifacts = self.ledger, self.run.artifacts
        before = f"{states.KIND}/{tail_before}" if tail_before else ledger.known
        for tail in [tail_before] * bool(tail_before) + [tails[batch.last]]:
            state = artifacts.find(states.KIND, tail, by_size=True)
            for day, contents in state.facts["days"].items() if state else ():
                day = date.fromisoformat(day)
                ledger.days[day] = Done(
                    artifact=f"{batches.KIND}/{tails[day]}", contents=contents, taught=f"{states.KIND}/{tail}"
                )
        if before and batch.newest not in ledger.before and (ledger.until is None or batch.newest > ledger.until):
            ledger.before[batch.newest] = before
        ledger.known, ledger.tail = f"{states.KIND}/{tails[batch.last]}", tails[batch.last]

    def _folders_before(self, first: date) -> list[Path]:
        """Of the days that a day is compared with."""
        since, artifacts = first - self.run.dataset.profile.days * ONE_DAY, self.run.artifacts
        earlier = [done.artifact for day, done in self.ledger.days.items() if since <= day < first]
        return [artifacts.get(artifact, by_size=True).folder for artifact in earlier]

    def _open_before(self, first: date) -> pl.DataFrame | None:
        """Events of sessions that were open when a day began."""
        earlier = [day for day in self.ledger.days if day < first]
        return self._open_after(max(earlier), first) if earlier else None

    def _open_after(self, day: date, closing_from: date | None = None) -> pl.DataFrame:
        """Events of sessions that were open when a day ended."""
        if day not in self.ledger.days:
            return pl.DataFrame(schema={EVENT_DAY: pl.Date})
        file = self.run.artifacts.get(self.ledger.days[day].artifact).folder / OPEN
        waiting = pl.read_parquet(file)
        return waiting.filter(pl.col(DAY) >= (closing_from or day)).drop(DAY)

    def _taught(self) -> Statistics:
        """What every finished day taught."""
        parts: dict[str, list[pl.DataFrame]] = {}
        by_state: dict[str, list[date]] = {}
        for day, done in self.ledger.days.items():
            by_state.setdefault(done.taught, []).append(day)
        for name, days in by_state.items():
            for key, table in State.read(self.run.artifacts, name).statistics_of(days).items():
                parts.setdefault(key, []).append(table)
        return {key: pl.concat(tables, how="vertical_relaxed") for key, tables in parts.items()}

    def _root(self) -> str:
        return identify(code="", lineage=self.lineage)

    def _save(self) -> None:
        if not self.on_the_side:
            self.ledger.write(self.run.artifacts, self.lineage)
