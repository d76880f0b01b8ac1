"""The order of events: by several keys or, on a CPU and where their ranges fit, by one integer that holds them all.

Sorting by one integer costs half of what sorting by three columns does, and what is equal is then found by one comparison:

    user 7..9, time (whole seconds) 0..59, item 100..149  ->  key = ((user - 7) * 60 + second) * 50 + item - 100
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from preprocessing.frames import collect
from preprocessing.source.values import INT64_HOLDS, TIME

KEY = "sort key"  # no column of events is called so
LAST = 2**63 - 1  # after all keys
UNITS = (1_000_000, 1_000, 1)  # whole seconds, milliseconds, microseconds


@dataclass(frozen=True)
class Packing:
    """How the columns that order events become one integer."""

    columns: tuple[tuple[str, int, int, int], ...]
    """Name, least value, unit, and how many units there are from the least value to the greatest."""

    def key(self) -> pl.Expr:
        """The integer of a row, from 0; the order of integers is that of the columns."""
        key: pl.Expr | None = None
        for name, low, unit, count in self.columns:
            place = pl.col(name).to_physical().cast(pl.Int64) - low
            place = place // unit if unit > 1 else place
            key = place if key is None else key * count + place
        assert key is not None
        return key


def packing_of(events: pl.LazyFrame, keys: list[str]) -> Packing | None:
    """Events and the columns that order them -> how these fit into one integer; None where they do not.

    Only numbers of the events are read back: the least and the greatest value of each key. Keys of text, and keys that may be
    null, do not fit.
    """
    schema = events.collect_schema()
    if not all(name in schema and (schema[name] in INT64_HOLDS or schema[name] == TIME) for name in keys):
        return None
    numbers = []
    for name in keys:
        value = pl.col(name).to_physical()
        numbers += [value.min().alias(f"{name} low"), value.max().alias(f"{name} high")]
        numbers.append(value.null_count().alias(f"{name} nulls"))
        if schema[name] == TIME:
            numbers += [(value % unit == 0).all().alias(f"{name} {unit}") for unit in UNITS[:1]]
    found = collect(events.select(numbers)).row(0, named=True)
    columns, size = [], 1
    for name in keys:
        low, high = found[f"{name} low"], found[f"{name} high"]
        if found[f"{name} nulls"] or low is None:
            return None
        unit = 1
        if schema[name] == TIME:
            unit = UNITS[0] if found[f"{name} {UNITS[0]}"] else _finer(events, name)
        count = (high - low) // unit + 1
        columns.append((name, low, unit, count))
        size *= count
    return Packing(tuple(columns)) if size < LAST else None


def _finer(events: pl.LazyFrame, name: str) -> int:
    """The coarsest unit in which times that are not of whole seconds are whole."""
    value = pl.col(name).to_physical()
    whole = collect(events.select((value % unit == 0).all().alias(str(unit)) for unit in UNITS[1:])).row(0)
    return next(unit for unit, fits in zip(UNITS[1:], whole, strict=True) if fits)
