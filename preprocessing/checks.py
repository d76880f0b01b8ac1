"""Row rules: good rows go on, bad rows go to quarantine, whole, with the name of the first rule they break.

A rule is a name and an expression that is true for a bad row. To add one, add a line to `rules`.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from preprocessing.engine import collect, collect_all
from preprocessing.events import as_found
from schemas.columns import ITEM_ID, POSITION, RULE, SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset

_CODE = "rule code"  # 0: good; n: breaks the n-th rule


def rules(dataset: Dataset, columns: list[str], now: datetime, items: pl.LazyFrame | None) -> dict[str, pl.Expr]:
    """The rules for events with these columns, in the order they are tried."""
    needed = [name for name in (USER_ID, ITEM_ID, TIMESTAMP, POSITION) if name in dataset.events.columns]
    if dataset.sessions.rule == "given" or USER_ID not in dataset.events.columns:
        needed.insert(0, SESSION_ID)
    found: dict[str, pl.Expr] = {}
    for name in needed:
        missing = pl.col(name).is_null()
        if as_found(name) in columns:
            found[f"{name}_null"] = missing & pl.col(as_found(name)).is_null()
            found[f"{name}_unparsable"] = missing & pl.col(as_found(name)).is_not_null()
        else:
            found[f"{name}_null"] = missing
    if TIMESTAMP in needed:
        found["in_future"] = (pl.col(TIMESTAMP) > now).fill_null(False)
    if dataset.items and dataset.items.unknown == "quarantine" and items is not None:
        known = collect(items.select(ITEM_ID).drop_nulls())[ITEM_ID]
        found["unknown_item"] = ~pl.col(ITEM_ID).is_in(known.implode())
    return found


def split(events: pl.DataFrame, rules: dict[str, pl.Expr]) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Good rows, bad rows as they were found with the column `rule`, and how many rows each broken rule has."""
    code = pl.lit(0, dtype=pl.Int32)
    for number, rule in reversed(list(enumerate(rules.values(), start=1))):
        code = pl.when(rule).then(pl.lit(number, dtype=pl.Int32)).otherwise(code)
    originals = [name for name in events.columns if as_found(name) in events.columns]
    marked = collect(events.lazy().with_columns(code.alias(_CODE))).lazy()
    names = pl.LazyFrame(
        {_CODE: range(1, len(rules) + 1), RULE: list(rules)}, schema={_CODE: pl.Int32, RULE: pl.String}
    )
    good = marked.filter(pl.col(_CODE) == 0)
    bad = marked.filter(pl.col(_CODE) > 0).join(names, on=_CODE, how="left", maintain_order="left")
    as_they_were = bad.with_columns(**{name: pl.col(as_found(name)) for name in originals})
    private = [_CODE, *map(as_found, originals)]
    good_rows, bad_rows = collect_all([good.drop(private), as_they_were.drop(private)])
    counts = collect(bad_rows.lazy().group_by(RULE).len().sort("len", RULE, descending=[True, False]))
    return good_rows, bad_rows, dict(counts.rows())
