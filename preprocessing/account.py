"""Where every row went: one table of counts by day, fate and name.

    day | fate | name | count

    rows read + carried in = kept + quarantined (by rule) + dropped (by step) + open

`day` is the day a row counts to: its local day, or the day of its session once sessions are cut. Accounts of buckets add up.
Example: of 10 rows of 2024-05-01 two lack a user and a step drops one:
(2024-05-01, read, "", 10), (2024-05-01, quarantined, user_id_null, 2), (2024-05-01, dropped, drop_repeats, 1),
(2024-05-01, kept, "", 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from schemas.columns import COUNT, DAY

FATE, NAME = "fate", "name"
READ, KEPT, QUARANTINED, DROPPED = "read", "kept", "quarantined", "dropped"
NULLED = "nulled"  # rows that stay without a value that did not fit, by rule: no part of the balance
SCHEMA = pl.Schema({DAY: pl.Date, FATE: pl.String, NAME: pl.String, COUNT: pl.Int64})
DUPLICATES, SHORT, CUT = "duplicates", "short_sessions", "cut_to_max_length"  # what drops rows beside steps


class Account:
    """The table while it is being filled."""

    def __init__(self) -> None:
        self._parts = [pl.DataFrame(schema=SCHEMA)]

    def add(self, fate: str, counts: pl.DataFrame, name: str = "", *, sign: int = 1) -> None:
        """Enter `counts` (`day`, `count`); with `sign` -1 they are taken off."""
        columns = (pl.col(DAY), pl.lit(fate).alias(FATE), pl.lit(name).alias(NAME), pl.col(COUNT) * sign)
        self._parts.append(counts.select(columns))

    def table(self) -> pl.DataFrame:
        """`day`, `fate`, `name`, `count`."""
        return add_up(self._parts)


def add_up(accounts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One account of several."""
    return pl.concat(accounts).group_by(DAY, FATE, NAME, maintain_order=True).agg(pl.col(COUNT).sum())


def count_rows(rows: pl.DataFrame, day: str) -> pl.DataFrame:
    """Rows by their column `day`: `day`, `count`."""
    counts = rows.lazy().group_by(pl.col(day).alias(DAY)).agg(pl.len().cast(pl.Int64).alias(COUNT))
    return counts.collect(engine="in-memory")


def total(account: pl.DataFrame, fate: str) -> int:
    """All rows with this fate."""
    return sum(count for _, count in _of_fate(account, fate))


def by_name(account: pl.DataFrame, fate: str, names: Iterable[str] = ()) -> dict[str, int]:
    """Rows with this fate by name: those of `names` in their order, also where they are 0, then others, the most first."""
    counts: dict[str, int] = {}
    for name, count in _of_fate(account, fate):
        counts[name] = counts.get(name, 0) + count
    found = dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
    return {name: found.pop(name, 0) for name in names} | found


def _of_fate(account: pl.DataFrame, fate: str) -> Iterator[tuple[str, int]]:
    """Name and count of each entry: a day has a handful, and a plan for them costs more than it computes."""
    columns = (account[name].to_list() for name in (FATE, NAME, COUNT))
    return ((name, count) for found, name, count in zip(*columns, strict=True) if found == fate)


def in_words(account: pl.DataFrame) -> str:
    """Where all rows went, in one line: "of 10 rows: user_id_null 2, drop_repeats 1"."""
    gone = by_name(account, QUARANTINED) | {name: n for name, n in by_name(account, DROPPED).items() if n}
    listed = ", ".join(f"{name} {n:,}" for name, n in gone.items() if n)
    return f"of {total(account, READ):,} rows: {listed or 'none was dropped'}."
