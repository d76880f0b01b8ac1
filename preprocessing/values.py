"""Turn what files hold into ids, times and numbers. What cannot be read becomes null; the caller keeps the original.

Each function takes a column, the type the file has, and the type its values seem to have (they differ for text files),
and returns an expression.
"""

from __future__ import annotations

import polars as pl

from schemas.errors import InputError

TIME = pl.Datetime("us", "UTC")
LATEST = 100_000_000_000_000_000  # microseconds: the year 5138. What is later is no time but a wrong unit.
# Integers below the limit are of that unit: 1e11 seconds is the year 5138, 1e11 milliseconds is March 1973.
UNITS = {"s": (10**11, 10**6), "ms": (10**14, 10**3), "us": (10**17, 1)}
# %#z reads Z, +02, +0200 and +02:00. A time without an offset is UTC.
ISO = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")


def read_id(column: str, stored: pl.DataType, seems: pl.DataType, id_type: str) -> pl.Expr:
    """An id: Int64 (or the file's narrower integer) or String. Empty text is null."""
    value = pl.col(column)
    if stored.is_nested() or stored.is_temporal() or stored in (pl.Boolean, pl.Binary):
        raise InputError(f"{column} holds {stored}; an id is an integer or a string.")
    if stored == pl.Null:
        return value.cast(pl.String if id_type == "string" else pl.Int64)
    if stored.is_float() or stored.is_decimal():  # what pandas makes of integers with gaps
        value = value.cast(pl.Float64)
        whole = pl.when(value == value.floor()).then(value).cast(pl.Int64, strict=False)
        return whole.cast(pl.String) if id_type == "string" else whole
    if stored.is_integer():
        return value.cast(pl.String) if id_type == "string" else value
    text = value.cast(pl.String)
    if id_type == "integer" or (id_type == "auto" and seems.is_integer()):
        return text.cast(pl.Int64, strict=False)
    return pl.when(text != "").then(text)


def read_time(column: str, stored: pl.DataType, seems: pl.DataType, unit: str) -> pl.Expr:
    """A moment as Datetime("us", "UTC"): from datetimes (without zone: UTC), dates, ISO text, numbers of `unit`."""
    value = pl.col(column)
    if isinstance(stored, pl.Datetime):
        return value.cast(TIME) if stored.time_zone else value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if stored == pl.Date:
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if stored == pl.Null:
        return value.cast(TIME)
    if stored.is_numeric():
        return _from_number(value, unit)
    if stored != pl.String:
        raise InputError(f"{column} holds {stored}; a time is a datetime, a date, ISO 8601 text or a number.")
    if seems.is_numeric():
        return _from_number(value.cast(seems, strict=False), unit)
    text = value.str.replace(" ", "T", literal=True)
    tries = [
        text.str.to_datetime(pattern, time_unit="us", time_zone="UTC", strict=False, cache=False) for pattern in ISO
    ]
    return pl.coalesce(*tries, _from_number(value.cast(pl.Int64, strict=False), unit))


def read_integer(column: str, stored: pl.DataType) -> pl.Expr:
    """A whole number, for positions."""
    return pl.col(column) if stored.is_integer() else pl.col(column).cast(pl.Int64, strict=False)


def read_other(column: str, stored: pl.DataType, seems: pl.DataType) -> pl.Expr:
    """Any further column: numbers stay numbers, dictionary types become text."""
    value = pl.col(column)
    if stored == pl.String and seems.is_numeric():
        return value.cast(seems, strict=False)
    if isinstance(stored, pl.Categorical | pl.Enum):
        return value.cast(pl.String)
    return value.cast(pl.Float64) if stored.is_decimal() else value


def _from_number(value: pl.Expr, unit: str) -> pl.Expr:
    if unit == "ns":
        return _as_time(value // 1000)
    if unit != "auto":
        limit, factor = UNITS[unit]
        # Values past the limit would overflow when multiplied.
        return _as_time(pl.when(value.abs() < limit).then(value * factor))
    size = value.abs()
    microseconds = value // 1000
    for limit, factor in reversed(UNITS.values()):
        microseconds = pl.when(size < limit).then(value * factor).otherwise(microseconds)
    return _as_time(microseconds)


def _as_time(microseconds: pl.Expr) -> pl.Expr:
    whole = microseconds.cast(pl.Int64, strict=False)
    return pl.when(whole.abs() < LATEST).then(whole).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
