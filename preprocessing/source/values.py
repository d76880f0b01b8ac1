"""Turn what files hold into ids, times and numbers. What cannot be read becomes null; the caller keeps the original.

Each function takes a column, the type the file has, and the type its values seem to have (they differ for text files),
and returns an expression. Types do not depend on how wide a file stores a number: integers become Int64, floats Float64,
times Datetime("us", "UTC").
"""

from __future__ import annotations

import polars as pl

from schemas.errors import InputError

TIME = pl.Datetime("us", "UTC")
LATEST = 100_000_000_000_000_000  # microseconds: the year 5138. What is later is no time but a wrong unit.
# Integers below the limit are of that unit: 1e11 seconds is the year 5138, 1e11 milliseconds is March 1973.
UNITS = {"s": (10**11, 10**6), "ms": (10**14, 10**3), "us": (10**17, 1)}
OFFSET_ISO = "%Y-%m-%dT%H:%M:%S%.f%#z"  # %#z reads Z, +02, +0200 and +02:00
NAIVE_ISO = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
INT64_HOLDS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)


def looks_like(text: pl.Series) -> pl.DataType:
    """The type that all the texts can be read as: Int64, Float64 or String; Null when all are empty."""
    given = text.drop_nulls()
    if given.is_empty():
        return pl.Null()
    numbers = (dtype for dtype in (pl.Int64(), pl.Float64()) if not given.cast(dtype, strict=False).has_nulls())
    return next(numbers, pl.String())


def may_fail(stored: pl.DataType, became: pl.DataType, zone: str) -> bool:
    """Whether some values of the one type have no counterpart in the other."""
    if isinstance(stored, pl.Datetime | pl.Date):  # a naive time that clocks skip
        return zone != "UTC" and getattr(stored, "time_zone", None) is None
    if became == pl.Int64 and stored in INT64_HOLDS:
        return False
    return stored != became and not stored.is_temporal() and not isinstance(stored, pl.Categorical | pl.Enum | pl.Null)


def read_id(column: str, stored: pl.DataType, seems: pl.DataType, id_type: str) -> pl.Expr:
    """An id: Int64 or String. Empty text is null."""
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
        return value.cast(pl.String) if id_type == "string" else value.cast(pl.Int64, strict=False)
    text = value.cast(pl.String)
    if id_type == "integer" or (id_type == "auto" and seems.is_integer()):
        return text.cast(pl.Int64, strict=False)
    return pl.when(text != "").then(text)


def read_time(column: str, stored: pl.DataType, seems: pl.DataType, unit: str, zone: str = "UTC") -> pl.Expr:
    """A moment as Datetime("us", "UTC"): from datetimes, dates, ISO text, numbers of `unit`.

    Times without an offset are of `zone`. Where its clocks go back, a time that comes twice is the earlier of the two;
    where they go forward, a time that does not come is null.
    """
    value = pl.col(column)
    if isinstance(stored, pl.Datetime):
        return value.cast(TIME) if stored.time_zone else _in_zone(value.cast(pl.Datetime("us")), zone)
    if stored == pl.Date:
        return _in_zone(value.cast(pl.Datetime("us")), zone)
    if stored == pl.Null:
        return value.cast(TIME)
    if stored.is_numeric():  # wide enough to hold microseconds
        return _from_number(value.cast(pl.Int64 if stored.is_integer() else pl.Float64, strict=False), unit)
    if stored != pl.String:
        raise InputError(f"{column} holds {stored}; a time is a datetime, a date, ISO 8601 text or a number.")
    if seems.is_numeric():
        return _from_number(value.cast(seems, strict=False), unit)
    text = value.str.replace(" ", "T", literal=True)
    aware = text.str.to_datetime(OFFSET_ISO, time_unit="us", time_zone="UTC", strict=False, cache=False)
    naive = [text.str.to_datetime(pattern, time_unit="us", strict=False, cache=False) for pattern in NAIVE_ISO]
    number = _from_number(value.cast(pl.Int64, strict=False), unit)
    return pl.coalesce(aware, _in_zone(pl.coalesce(*naive), zone), number)


def local_day(moment: pl.Expr, time_zone: str) -> pl.Expr:
    """The day of a moment in a time zone."""
    return (moment if time_zone == "UTC" else moment.dt.convert_time_zone(time_zone)).dt.date()


def read_integer(column: str, stored: pl.DataType) -> pl.Expr:
    """A whole number, for positions."""
    return pl.col(column).cast(pl.Int64, strict=False)


def read_other(column: str, stored: pl.DataType, seems: pl.DataType, zone: str = "UTC") -> pl.Expr:
    """Any further column: numbers and times keep their kind, dictionary types become text."""
    value = pl.col(column)
    if stored == pl.String and seems.is_numeric():
        return value.cast(seems, strict=False)
    if stored.is_integer():
        return value.cast(pl.Int64)  # strict: a number beyond Int64 is refused, not lost
    if stored.is_float() or stored.is_decimal():
        return value.cast(pl.Float64)
    if isinstance(stored, pl.Datetime):
        return read_time(column, stored, seems, "auto", zone)
    return value.cast(pl.String) if isinstance(stored, pl.Categorical | pl.Enum) else value


def _in_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    if zone == "UTC":
        return naive.dt.replace_time_zone("UTC")
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")


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
