"""A dataset that is taken whole (split: leave_one_out): one batch without days, done anew when anything changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import polars as pl

from preprocessing.execution.batch import Batch
from preprocessing.execution.run import Run
from preprocessing.features import state as states
from preprocessing.features.state import State
from preprocessing.history.batches import Work, day_writer
from preprocessing.history.changes import Contents, Part
from preprocessing.output import day as output
from preprocessing.output.profile import Profiles
from preprocessing.sessions import ONE_BATCH
from preprocessing.source.index import DIGEST, PATH, ROWS
from schemas.artifacts import identify
from schemas.columns import DAY


@dataclass
class Whole:
    """The one batch, and the row that a ledger would keep of it."""

    run: Run
    line: str
    row: pl.DataFrame = field(init=False)
    state: State = field(init=False)

    def work(self) -> Iterator[Work]:
        """The one batch: all files, as they are now."""
        index, window, start = self.run.source.index, self.run.source.window, self.run.start()
        contents = Contents(tuple(self._parts()))
        tables, days = self.run.source.tables, (window.first, window.last)
        name = identify(code=self.line, made_of=contents.key(), tables=tables, days=days)
        files = {ONE_BATCH: index.files()}
        batch = Batch(self.run, name, ONE_BATCH, ONE_BATCH, ONE_BATCH, files, {}, None, start.fitted, start)
        yield Work(batch, {ONE_BATCH: contents}, {ONE_BATCH: name})

    def finds(self, work: Work) -> bool:
        """Whether it was done before."""
        day = self.run.artifacts.find(output.KIND, work.tail)
        if day is None or self.run.artifacts.find(states.KIND, work.tail) is None:
            return False
        work.manifests = [day]
        return True

    def write(self, work: Work) -> None:
        """The artifacts: sessions and state."""
        batch = work.batch
        with self.run.phase("commit") as said:
            writer = day_writer(batch, Profiles.of(batch.frames, self.run.dataset, batch.job.plan.features))
            work.manifests = [writer.write(ONE_BATCH, work.tail, batch.session_files(ONE_BATCH), 0)]
            batch.after.write(self.run.artifacts, work.tail, {"days": [], "previous": ""})
            said("all sessions")
        batch.clean_up()

    def enter(self, work: Work) -> None:
        """Keep what a snapshot is made from."""
        (manifest,), state = work.manifests, f"{states.KIND}/{work.tail}"
        parts = [(*part, False) for part in work.contents[ONE_BATCH].parts]
        row = output.row_of(manifest, ONE_BATCH, parts, "", state)
        self.row, self.state = pl.DataFrame([row], schema=output.ROW), State.read(self.run.artifacts, state)

    def _parts(self) -> list[Part]:
        rows = self.run.source.index.table.filter(pl.col(ROWS) > 0).sort(PATH, DAY)
        return rows.select(PATH, DAY, ROWS, DIGEST).rows()
