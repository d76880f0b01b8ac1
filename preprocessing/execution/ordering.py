"""The order of events: by several keys or, on a CPU, by one integer that holds the first of them, as many as fit.

Sorting by one integer costs half of what sorting by three columns does, and what is equal is then found by one comparison:

    user 7..9, time (whole seconds) 0..59, item 100..149  ->  key = ((user - 7) * 60 + second) * 50 + item - 100

Where items are text, or too far from each other, the integer holds user and time, and items order what ties. Users that are
text are numbered first, in their order (`codes_of`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import polars as pl

from preprocessing.frames import collect
from preprocessing.source.values import INT64_HOLDS, TIME

KEY = "sort key"  # no column of events is called so
LAST = 2**63 - 1  # after all keys
UNITS = (1_000_000, 1_000, 1)  # whole seconds, milliseconds, microseconds


@dataclass(frozen=True)
class Packing:
    """How the first of the columns that order events become one integer."""

    columns: tuple[tuple[str, int, int, int], ...]
    """Name, least value, unit, and how many units there are from the least value to the greatest."""
    left: tuple[str, ...] = ()
    """The columns that order events after these."""

    @property
    def names(self) -> list[str]:
        """All columns that order events."""
        return [*(name for name, *_ in self.columns), *self.left]

    @property
    def size(self) -> int:
        """How many integers there are: all are below."""
        return prod(count for *_, count in self.columns)

    def shortened(self, size: int) -> Packing:
        """With fewer columns, so that there are at most so many integers."""
        packing = self
        while packing.columns and packing.size > size:
            (name, *_) = packing.columns[-1]
            packing = Packing(packing.columns[:-1], (name, *packing.left))
        return packing

    def key(self) -> pl.Expr:
        """The integer of a row, from 0; the order of integers is that of the columns."""
        key: pl.Expr | None = None
        for name, low, unit, count in self.columns:
            place = pl.col(name).to_physical().cast(pl.Int64) - low
            place = place // unit if unit > 1 else place
            key = place if key is None else key * count + place
        assert key is not None
        return key


def codes_of(texts: pl.Series) -> pl.Series:
    """Texts -> integers in the order of the texts, null for null: b, null, a, b -> 1, null, 0, 1.

    That costs a tenth of ranking them: only different ones are sorted.
    """
    # Of their own: all other categories share one list, with the texts of all columns and threads that are numbered now.
    coded = texts.cast(pl.Categorical(pl.Categories.random()))
    values = coded.cat.get_categories()
    ranks = np.empty(values.len(), dtype=np.int64)
    ranks[values.arg_sort().to_numpy()] = np.arange(values.len())
    return pl.Series(texts.name, ranks, dtype=pl.Int64).gather(coded.to_physical())


def packing_of(events: pl.LazyFrame, keys: list[str]) -> Packing | None:
    """Events and the columns that order them -> how the first of these fit into one integer; None where not two of them do.

    Only numbers of the events are read back: the least and the greatest value of each key. Keys of text, and keys that may be
    null, do not fit.
    """
    schema = events.collect_schema()
    whole = [name in schema and (schema[name] in INT64_HOLDS or schema[name] == TIME) for name in keys]
    packed = keys[: [*whole, False].index(False)]
    numbers = []
    for name in packed:
        value = pl.col(name).to_physical()
        numbers += [value.min().alias(f"{name} low"), value.max().alias(f"{name} high")]
        numbers.append(value.null_count().alias(f"{name} nulls"))
        if schema[name] == TIME:
            numbers += [(value % unit == 0).all().alias(f"{name} {unit}") for unit in UNITS[:1]]
    found = collect(events.select(numbers)).row(0, named=True) if packed else {}
    columns: list[tuple[str, int, int, int]] = []
    for name in packed:
        low, high = found[f"{name} low"], found[f"{name} high"]
        if found[f"{name} nulls"] or low is None:
            break
        unit = 1
        if schema[name] == TIME:
            unit = UNITS[0] if found[f"{name} {UNITS[0]}"] else _finer(events, name)
        columns.append((name, low, unit, (high - low) // unit + 1))
    packing = Packing(tuple(columns), tuple(keys[len(columns) :])).shortened(LAST - 1)
    return packing if len(packing.columns) > 1 else None


def _finer(events: pl.LazyFrame, name: str) -> int:
    """The coarsest unit in which times that are not of whole seconds are whole."""
    value = pl.col(name).to_physical()
    whole = collect(events.select((value % unit == 0).all().alias(str(unit)) for unit in UNITS[1:])).row(0)
    return next(unit for unit, fits in zip(UNITS[1:], whole, strict=True) if fits)
