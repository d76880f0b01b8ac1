"""What to say where a step left no row: the values that it saw."""

from __future__ import annotations

import polars as pl

from preprocessing import account as accounts
from preprocessing.execution.run import Run
from preprocessing.frames import collect
from preprocessing.source.files import reading
from schemas.columns import COUNT, EVENT_TYPE

STEP = "filter_event_types"
MOST = 8  # values that are listed


def in_words(run: Run, account: pl.DataFrame) -> str:
    """Where all rows went, and where `filter_event_types` dropped all that checks had left, the types in the source."""
    said = accounts.in_words(account)
    dropped = accounts.by_name(account, accounts.DROPPED).get(STEP, 0)
    if not dropped or accounts.total(account, accounts.KEPT) or EVENT_TYPE not in run.source.types:
        return said
    kept = [step.options.get("keep", []) for step in run.dataset.steps if step.name == STEP]
    rows, _ = run.source.raw({file.path for file in run.source.files.files})
    with reading(run.dataset.source):
        counts = collect(rows.group_by(EVENT_TYPE).agg(pl.len().alias(COUNT))).sort(
            COUNT, EVENT_TYPE, descending=[True, False], nulls_last=True
        )
    listed = ", ".join(f"{value!r} ({count:,})" for value, count in counts.head(MOST).iter_rows())
    more = f" and {counts.height - MOST:,} more" if counts.height > MOST else ""
    names = "; then ".join(", ".join(map(repr, keep)) for keep in kept)
    return f"{said} {STEP} keeps {names}, and {EVENT_TYPE} holds {listed}{more}: name some of these in `keep`."
