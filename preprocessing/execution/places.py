"""Rows in order as places in the frame they are in, on a CPU: few columns are moved on the way, the rest at the end.

    rows (any order, bad ones marked) -> Places.of -> narrow (what cleaning looks at, PLACE) -> plans -> widen (all columns)

Columns that no rule of sessions looks at, such as a price, are copied once instead of at every sort and filter. NumPy sorts
one integer in a third of the time of Polars, and in a sixth where it holds the row's place as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from preprocessing.execution.ordering import KEY, LAST, Packing
from preprocessing.plan.rules import RULE_CODE
from preprocessing.sessions import EVENT_DAY, differs

PLACE = "place of row"  # no column of events is called so
CODE = "code of "  # nor so: begins the name of a column of integers in the order of one of text
FEW = 8  # of so many rows one may tie where the integer that orders them leaves keys out


@dataclass(frozen=True)
class Places:
    """Where good rows lie, in order, without those that are left out as the same as the one before them."""

    rows: pl.DataFrame
    """In any order, bad ones among them."""
    places: pl.Series
    duplicates: pl.Series
    """Where the rows lie that are left out as the same."""

    @classmethod
    def of(cls, rows: pl.DataFrame, packing: Packing, rest: Sequence[str], *, drop: bool) -> Places:
        """`rows` have RULE_CODE, and a column CODE for each that `packing` has one of; `rest` are the columns that order rows
        which agree in all keys; `drop` rows that are the same.

        Rows are the same that agree in all keys and in `rest`, but for EVENT_DAY.
        """
        order, same, left = _in_order(rows, packing)
        for columns in (left, rest):
            (later,) = np.nonzero(same)
            if _differ(rows, _places(order[later]), _places(order[later - 1]), columns):
                _break_ties(rows, order, same, columns)
        (later,) = np.nonzero(same)
        kept = np.delete(order, later) if drop and len(later) else order
        codes = [name for name in rows.columns if name.startswith(CODE)]
        return cls(rows.drop(codes), _places(kept), _places(order[later] if drop else order[:0]))

    def narrow(self, columns: Collection[str]) -> pl.DataFrame:
        """These columns of the rows in order, and PLACE unless there are no other columns."""
        wanted = [name for name in self.rows.columns if name in columns and name != RULE_CODE]
        frame = self.rows.select(wanted)[self.places]
        whole = {*wanted, RULE_CODE} >= set(self.rows.columns)
        return frame if whole else frame.with_columns(self.places.alias(PLACE))

    def drop(self, rows: pl.LazyFrame, looked_at: Collection[str]) -> pl.LazyFrame:
        """Rows of `narrow`, with further columns perhaps -> the same without those of events that are looked at no more."""
        columns = rows.collect_schema().names()
        gone = [name for name in self.rows.columns if name in columns and name not in looked_at]
        return rows.drop(gone) if PLACE in columns else rows

    def widen(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows of `narrow`, with further columns perhaps -> the same with the columns that were left out, in their order.

        But for EVENT_DAY, which is always looked at until it is dropped for good.
        """
        if PLACE not in rows.columns:
            return rows
        first = [name for name in self.rows.columns if name not in (RULE_CODE, EVENT_DAY)]
        lacking = [name for name in first if name not in rows.columns]
        whole = rows.hstack(self.rows.select(lacking)[rows[PLACE]])
        return whole.select(*first, pl.exclude(*first, PLACE))


def by_day(rows: pl.DataFrame, day: str) -> pl.DataFrame:
    """Rows in order of a column of days that holds no null, those of a day in the order they were in."""
    days = rows[day].to_physical().to_numpy()
    if len(days) and (days[1:] < days[:-1]).any():
        days = days - days.min()
        if days.max() < 2**16:  # NumPy orders short integers by counting them
            days = days.astype(np.uint16)
        # Two threads leave rows in two parts, from which they are moved at four times the cost.
        rows = rows.rechunk()[_places(np.argsort(days, kind="stable"))]
    return rows.with_columns(pl.col(day).set_sorted())


def _places(places: np.ndarray) -> pl.Series:
    return pl.Series(PLACE, places.astype(np.uint32, copy=False))


def _in_order(rows: pl.DataFrame, packing: Packing) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Where good rows lie, in order of the first columns that order them; whether each agrees in these with the one before it;
    the columns that remain.

    An integer of as many columns as leave room for a row's place is sorted as it is: half the time of finding its order, and
    no row is moved. Where too many rows tie then, as they do where times are of days, the integer of more columns is better.
    """
    bits = rows.height.bit_length()
    short = packing.shortened((1 << (63 - bits)) - 1)
    if len(short.columns) > 1:
        keys = _keys(rows, short, short.size)
        keys <<= bits
        keys += np.arange(rows.height)
        keys.sort()
        keys = keys[: np.searchsorted(keys, short.size << bits)]
        order, same = (keys & ((1 << bits) - 1)).astype(np.uint32), _same(keys >> bits)
        if len(short.columns) == len(packing.columns) or same.sum() * FEW <= len(same):
            return order, same, short.left
    keys = _keys(rows, packing, LAST)
    places = np.argsort(keys)
    keys = keys[places]
    last = np.searchsorted(keys, LAST)
    return places[:last].astype(np.uint32), _same(keys[:last]), packing.left


def _keys(rows: pl.DataFrame, packing: Packing, bad: int) -> np.ndarray:
    """The integer of each good row; `bad` of the rest."""
    key = pl.when(pl.col(RULE_CODE) == 0).then(packing.key()).otherwise(bad)
    return rows.select(key).to_series().to_numpy(writable=True)


def _same(keys: np.ndarray) -> np.ndarray:
    """Whether each is the same as the one before it."""
    same = np.zeros(len(keys), dtype=bool)
    np.equal(keys[1:], keys[:-1], out=same[1:])
    return same


def _break_ties(rows: pl.DataFrame, order: np.ndarray, same: np.ndarray, columns: Sequence[str]) -> None:
    """Put rows that agree in what has ordered them in order of `columns`, in place; `same` then says which agree in these, too.

    EVENT_DAY orders rows and makes no difference. Few rows tie, as a rule: to order these alone costs a hundredth of ordering
    all rows by all columns.
    """
    member = same.copy()
    member[:-1] |= same[1:]
    (at,) = np.nonzero(member)
    group = pl.Series(KEY, np.cumsum(~same[at]))
    tied = rows.select(columns)[_places(order[at])].with_columns(group).with_row_index(PLACE)
    tied = tied.sort(KEY, *columns, PLACE)
    order[at] = order[at][tied[PLACE].to_numpy()]
    compared = [KEY, *(name for name in columns if name != EVENT_DAY)]
    same[at] = ~tied.select(differs(compared)).to_series().to_numpy()


def _differ(rows: pl.DataFrame, one: pl.Series, other: pl.Series, columns: Sequence[str]) -> bool:
    """Whether rows at places differ from those at other places, each from its own."""
    if not columns or one.is_empty():
        return False
    compared = rows.select(columns)
    pairs = zip(compared[one].get_columns(), compared[other].get_columns(), strict=True)
    return any(bool(mine.ne_missing(theirs).any()) for mine, theirs in pairs)
