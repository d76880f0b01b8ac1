"""A dataset that is taken whole (split: leave_one_out): one batch without days, done anew when anything changes."""

from __future__ import annotations

import polars as pl

from preprocessing.execution.batch import Batch, Run
from preprocessing.features import state as states
from preprocessing.features.state import State
from preprocessing.history.lines import made_with
from preprocessing.history.window import Window
from preprocessing.output import day as output
from preprocessing.output.day import ROW, DayWriter
from preprocessing.output.profile import Profiles
from preprocessing.sessions import ONE_BATCH
from preprocessing.source.index import DIGEST, PATH, ROWS
from schemas.artifacts import identify
from schemas.columns import DAY, ITEM_ID


def whole_day(run: Run, line: str, window: Window) -> tuple[pl.DataFrame, State]:
    """The row of the one batch, as of a finished day, and the state after it; found if it was done before."""
    artifacts, index = run.artifacts, run.source.index
    parts = index.table.filter(pl.col(ROWS) > 0).sort(PATH, DAY).select(PATH, DAY, ROWS, DIGEST).rows()
    content = [(str(day), rows, digest) for _, day, rows, digest in parts]
    batch_id = identify(code=line, made_of=content, tables=run.source.tables, first=window.first, last=window.last)
    found, state = artifacts.find(output.KIND, batch_id), f"{states.KIND}/{batch_id}"
    if found is None or artifacts.find(states.KIND, batch_id) is None:
        run.source.window = window
        start = run.start()
        files = {ONE_BATCH: index.files()}
        batch = Batch(run, ONE_BATCH, ONE_BATCH, ONE_BATCH, files, {}, None, start.fitted, start)
        done = batch.do(batch_id)
        profiles = Profiles.of(done.frames, run.dataset, run.plan.features)
        vocabulary, made = done.after.fitted[ITEM_ID], made_with(run.dataset, run.source.tables)
        writer = DayWriter(artifacts, run.dataset, done.job.plan, done.frames, done.account, profiles, vocabulary, made)
        found = writer.write(ONE_BATCH, batch_id, done.session_files(ONE_BATCH), 0, None)
        done.after.write(artifacts, batch_id, {"days": [], "previous": ""})
        done.clean_up()
    row = output.row_of(found, ONE_BATCH, parts, "", state)
    return pl.DataFrame([row], schema=ROW), State.read(artifacts, state)
