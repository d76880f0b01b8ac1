"""What of a source is new: days to do, days to do again, rows that come too late, from the index and the ledger.

A finished day is done again only when the source still holds everything it was made of, and some of it is new or changed:

- Every row that it was made of is there, in whatever file. Rows of recent days are known one by one (`history.rows`); of older
  days every part of a file must be there, with the same content, or grown at its end.
- The next day, into which its open sessions reach, is whole in the source too, or not finished yet.

A source that shrinks is therefore no reason. Rows that are new for a day that cannot be done again come too late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta

import polars as pl

from preprocessing.execution.run import Run
from preprocessing.history.ledger import Ledger
from preprocessing.history.rows import beyond as beyond_of
from preprocessing.history.rows import is_all_there, rows_made_of, rows_of_day
from preprocessing.sessions import KEY
from preprocessing.source.index import DIGEST, HASH, PATH, ROWS, Index
from schemas.columns import DAY
from schemas.errors import InputError

ONE_DAY = timedelta(days=1)
LISTED = 10  # days, in a message
FINISHED, COUNTED = "finished", "counted"
Part = tuple[str, date | None, int, int]  # path, day, rows, digest


@dataclass(frozen=True)
class SetAside:
    """Rows of a file that no day is made of: those of `day` (None: without a usable day).

    They are `frame` (as they are read, with the hash of each) or, where that is None, all but the first `skip` of the file's.
    """

    path: str
    day: date | None
    rows: int
    digest: int
    skip: int = 0
    frame: pl.DataFrame | None = field(default=None, compare=False, repr=False)

    @property
    def part(self) -> Part:
        """What the ledger says of them."""
        return self.path, self.day, self.rows, self.digest


@dataclass(frozen=True)
class Contents:
    """What a day is made of: parts of files."""

    parts: tuple[Part, ...] = ()

    @property
    def paths(self) -> list[str]:
        """The files."""
        return sorted({path for path, *_ in self.parts})

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(rows for _, _, rows, _ in self.parts)

    def undated(self) -> set[str]:
        """The files of which it has rows without a usable day."""
        return {path for path, day, *_ in self.parts if day is None}

    def key(self) -> list[tuple[str, int, int]]:
        """What the name of the day's artifact is made from: files may be renamed without a change."""
        return sorted((str(day), rows, digest) for _, day, rows, digest in self.parts)


@dataclass
class Changes:
    """The days of a source beside those that are finished."""

    parts: pl.DataFrame
    """Parts of files by the day that is, or was, made of them: `counted`, `path`, `day`, `rows`, `digest`."""
    changed: list[date]
    """Finished days to do again, and days up to the last finished one that had no events before."""
    held: set[date]
    """Finished days that the source still holds whole."""
    late: list[SetAside] = field(default_factory=list)
    """Rows that came for days that cannot be done again."""
    undated: list[SetAside] = field(default_factory=list)
    """Rows without a usable day whose file has no day to be done."""

    def contents(self, first: date, last: date) -> dict[date, Contents]:
        """What the days from `first` to `last` are made of; days without events are left out."""
        rows = self.parts.filter(pl.col(COUNTED).is_between(first, last)).sort(COUNTED, PATH, DAY)
        parts: dict[date, list[Part]] = {}
        for counted, *part in rows.iter_rows():
            parts.setdefault(counted, []).append((part[0], part[1], part[2], part[3]))
        return {day: Contents(tuple(of_day)) for day, of_day in parts.items()}

    def of(self, day: date) -> Contents:
        """What one day is made of."""
        return self.contents(day, day).get(day, Contents())


def find_changes(run: Run, ledger: Ledger) -> Changes:
    """Compare a source with what was made of it."""
    index, since = run.source.index, run.dataset.since
    now = index.table.filter(index.usable & (pl.col(ROWS) > 0)).select(PATH, DAY, ROWS, DIGEST)
    if since:
        now = now.filter(pl.col(DAY) >= since)
    if run.source.held_back:
        now = now.filter(~pl.col(DAY).is_in(list(run.source.held_back)))
    made, until = ledger.parts(), ledger.about.until
    same_hash = ledger.about.hashed_by == HASH
    differing = _differing_days(now, made, same_hash)
    placed, undated = _place_undated(index, made, until)
    if run.source.held_back:
        placed = placed.filter(~pl.col(COUNTED).is_in(list(run.source.held_back)))
    dated = now.select(pl.col(DAY).alias(COUNTED), PATH, DAY, ROWS, DIGEST)
    changes = Changes(dated.vstack(placed), [], _whole_days(now, differing, ledger), undated=undated)
    to_judge = sorted(day for day in differing if until and day <= until)
    beyond: dict[date, list[SetAside]] = {}
    with_own = ledger.rows_by_day() if to_judge else {}
    for day in to_judge:
        new = now.filter(pl.col(DAY) == day).select(PATH, DAY, ROWS, DIGEST).rows()
        held, beyond[day] = _judge(run, ledger, day, new, made, same_hash)
        if held or (ledger.has(day) and day not in with_own):  # no row of its own can be lost
            changes.held.add(day)
    for day in to_judge:
        if (day in changes.held or not ledger.has(day)) and _next_is_free(day, ledger, changes.held):
            changes.changed.append(day)
        else:
            changes.late += beyond[day]
    return changes


def _judge(
    run: Run, ledger: Ledger, day: date, new: list[Part], made: pl.DataFrame, same_hash: bool
) -> tuple[bool, list[SetAside]]:
    """Of a day whose rows in the source are others: whether it is whole there, and the rows beyond what was counted."""
    made_of = rows_made_of(run, ledger, day)
    if made_of is None:
        old = made.filter((pl.col(FINISHED) == day) & (pl.col(DAY) == day)).select(PATH, DAY, ROWS, DIGEST).rows()
        return bool(old) and _all_there(old, new, same_hash), _rows_beyond(new, made)
    rows = rows_of_day(run, sorted({path for path, *_ in new}), day)
    parts = beyond_of(made_of, rows).partition_by(PATH, as_dict=True, include_key=False, maintain_order=True)
    late = [
        SetAside(str(path), day, part.height, int(part[KEY].hash().sum()) % 2**63, frame=part)
        for (path,), part in parts.items()
    ]
    return is_all_there(made_of, rows), late


def _whole_days(now: pl.DataFrame, differing: set[date], ledger: Ledger) -> set[date]:
    """Days that are there as they were when they were done; those without rows of their own hold none to be lost."""
    own = ledger.rows_by_day()
    return (set(now[DAY].unique()) - differing) | (set(ledger.days[DAY]) - own.keys() - differing)


def _differing_days(now: pl.DataFrame, made: pl.DataFrame, same_hash: bool) -> set[date]:
    """Days whose rows in the source are not those that the day was made of; days that have none there are not among them."""
    if made.is_empty():
        return set(now[DAY].unique())
    sums = [pl.col(ROWS).sum(), pl.col(DIGEST).sum()]
    dated = made.filter(pl.col(DAY) == pl.col(FINISHED))
    both = now.group_by(DAY).agg(sums).join(dated.group_by(DAY).agg(sums), on=DAY, how="left", suffix=" made")
    differs = pl.col(ROWS).ne_missing(pl.col(f"{ROWS} made"))
    if same_hash:
        differs = differs | pl.col(DIGEST).ne_missing(pl.col(f"{DIGEST} made"))
    return set(both.filter(differs)[DAY])


def _all_there(old: list[Part], new: list[Part], same_hash: bool) -> bool:
    by_path = {path: (rows, digest) for path, _, rows, digest in new}
    lost = [(path, rows, digest) for path, _, rows, digest in old if by_path.get(path, (0, 0))[0] < rows]
    kept = {path for path, *_ in old} - {path for path, *_ in lost}
    moved = {(rows, digest) for path, (rows, digest) in by_path.items() if path not in kept}
    grown = [path for path, _, rows, digest in old if by_path.get(path, (0, 0)) != (rows, digest)]
    if not same_hash:
        return not lost
    if any(by_path.get(path, (0, 0))[0] == rows for path, _, rows, _ in old if path in grown):
        return False  # other rows in place of those: nobody can say which
    return all((rows, digest) in moved for _, rows, digest in lost)


def _next_is_free(day: date, ledger: Ledger, held: set[date]) -> bool:
    """Whether the day after, into which open sessions reach, can follow: it is not finished, or whole in the source."""
    return day + ONE_DAY in held or not ledger.has(day + ONE_DAY)


def _rows_beyond(parts: list[Part], made: pl.DataFrame) -> list[SetAside]:
    """Of parts in the source, the rows that no finished day has counted: what a file has more than it had."""
    beyond = []
    for path, day, rows, digest in parts:
        of_day = made.filter(pl.col(DAY) == day)
        counted = int(of_day.filter(pl.col(PATH) == path)[ROWS].sum())
        moved = of_day.filter((pl.col(ROWS) == rows) & (pl.col(DIGEST) == digest)).height
        if rows > counted and not moved:
            beyond.append(SetAside(path, day, rows - counted, digest, skip=counted))
    return beyond


def _renamed(before: pl.DataFrame, wrong: pl.DataFrame) -> pl.DataFrame:
    """Parts without a usable day that were counted, under the path that a file of the same content has now."""
    gone = before.join(wrong, on=PATH, how="anti")
    names = wrong.join(before, on=PATH, how="anti").select(pl.col(PATH).alias("now"), ROWS, DIGEST)
    moved = (
        gone.join(names, on=[ROWS, DIGEST], how="left").with_columns(pl.coalesce("now", PATH).alias(PATH)).drop("now")
    )
    return pl.concat([before.join(wrong, on=PATH, how="semi"), moved.select(before.columns)])


def _after(day: pl.Expr, until: date | None) -> pl.Expr:
    return pl.lit(True) if until is None else day > until


def _place_undated(index: Index, made: pl.DataFrame, until: date | None) -> tuple[pl.DataFrame, list[SetAside]]:
    """Give rows without a usable day to the last usable day of their file if that is to be done.

    Returns the parts given to days, those that finished days have counted among them, and the others.
    """
    rows = index.table.filter(~index.usable & (pl.col(ROWS) > 0))
    if rows.is_empty():
        return rows.select(pl.col(DAY).alias(COUNTED), PATH, DAY, ROWS, DIGEST), []
    wrong = rows.group_by(PATH, maintain_order=True).agg(pl.col(ROWS).sum(), pl.col(DIGEST).sum())
    last = index.table.filter(index.usable).group_by(PATH).agg(pl.col(DAY).max().alias("last"))
    before = _renamed(made.filter(pl.col(DAY).is_null()), wrong)
    counted = before.group_by(PATH).agg(pl.col(ROWS).sum().alias("already"))
    home = before.filter(~pl.col("aside")).group_by(PATH, ROWS).agg(pl.col(FINISHED).min().alias("home"))
    table = (
        wrong.join(last, on=PATH, how="left")
        .join(counted, on=PATH, how="left")
        .join(home, on=[PATH, ROWS], how="left")
        .with_columns(pl.col("already").fill_null(0))
        .sort(PATH)
    )
    is_new = (pl.col("already") == 0) & pl.col("last").is_not_null() & _after(pl.col("last"), until)
    place = pl.when(pl.col("already") >= pl.col(ROWS)).then("home").when(is_new).then("last")
    placed = table.select(place.alias(COUNTED), PATH, pl.lit(None, dtype=pl.Date).alias(DAY), ROWS, DIGEST)
    rest = table.filter((pl.col("already") < pl.col(ROWS)) & ~is_new)
    aside = [
        SetAside(path, None, rows - already, digest, skip=already)
        for path, rows, digest, already in rest.select(PATH, ROWS, DIGEST, "already").iter_rows()
    ]
    return placed.drop_nulls(COUNTED), aside


def asked_for(ledger: Ledger, changes: Changes, redo: tuple[date, date]) -> set[date]:
    """The finished days from the first to the last of `redo`.

    A day whose rows the source holds others in place of, a correction, may be done again on purpose.

    Raises:
        InputError: when there are none, or the source holds fewer rows of one than it was made of.
    """
    first, last = redo
    asked = set(ledger.days.filter(pl.col(DAY).is_between(first, last))[DAY])
    if not asked:
        finished = ledger.days[DAY]
        there = (
            f"finished days run from {finished.min()!s} to {finished.max()!s}" if len(finished) else "none is finished"
        )
        raise InputError(f"redo {first}..{last}: no finished day with events lies there; {there}.")
    made = ledger.rows_by_day()
    if gone := sorted(day for day in asked - changes.held if changes.of(day).rows < made.get(day, 0)):
        raise InputError(
            f"redo {first}..{last}: the source no longer holds all that these days were made of, so events would be lost: "
            f"{days_in_words(gone)}. Nothing was done; give days that the source still holds."
        )
    return asked


def days_in_words(days: list[date]) -> str:
    """The first few of these days and how many more there are."""
    more = f" and {len(days) - LISTED} more" if len(days) > LISTED else ""
    return ", ".join(str(day) for day in days[:LISTED]) + more
