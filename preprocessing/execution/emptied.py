"""What to say where no row is left, or nothing of a column: the values that a step saw, and tables of other ids."""

from __future__ import annotations

import polars as pl

from preprocessing import account as accounts
from preprocessing.execution.run import Run
from preprocessing.frames import collect
from preprocessing.source.files import reading
from preprocessing.source.lookups import KEYS, read_items, read_users, with_ids_of
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


def strange_tables(run: Run) -> str:
    """A sentence for each table of items or users that has none of the events' ids, with an id of both; else nothing."""
    rows, _ = run.source.raw({file.path for file in run.source.files.files})
    said = []
    for part, read in (("items", read_items), ("users", read_users)):
        about, key = getattr(run.dataset, part), KEYS[part]
        if about is None:
            continue
        with reading(run.dataset.source):
            of_events = collect(rows.select(key).drop_nulls().unique())
            of_table = collect(with_ids_of(rows, read(run.dataset), key).select(key).unique())
        if of_events.height and of_events.join(of_table, on=key, how="semi").is_empty():
            such_as = f", such as {of_table[key].min()!r}" if of_table.height else ""
            said.append(
                f" The table {part}.path {about.path!r} has none of the events' {key}s, such as {of_events[key].min()!r}: it "
                f"has {of_table.height:,} of its own{such_as}. Map the column that holds the same ids ({part}.columns.{key})."
            )
    return "".join(said)
