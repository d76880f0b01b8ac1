"""Raw values as people give them, in files and in Python, as the type that a model's vocabularies and encoders take.

Nothing is guessed and nothing is nulled in silence: a value that does not fit is refused with its row.

    "7" and 7.0 -> 7 for Int64;  7 -> "7" for String;  "12.5" -> 12.5 for Float64;  "2026-03-08T09:00:00Z" -> that moment
    "abc" or 7.5 for Int64, True for a number, 12.5 for text -> InputError: row 3 holds 'abc'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, tzinfo
from functools import partial
from numbers import Integral
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from schemas.errors import InputError

TIME = pl.Datetime("us", "UTC")
DIGITS = r"^[+-]?\d+$"
# Integers below the limit are of that unit since 1970, as in preparation: seconds, milliseconds, microseconds.
UNITS = ((10**11, 10**6), (10**14, 10**3), (10**17, 1))
WORDS = {pl.String: "text", pl.Float64: "numbers", pl.Boolean: "true or false", TIME: "times", pl.Date: "dates"}
Dtype = pl.DataType | type[pl.DataType]


def as_type(raw: pl.Series, dtype: Dtype, what: str, zone: str = "UTC") -> pl.Series:
    """A column of raw values as `dtype`; null stays null. `what` says of whom it is: "new items", "events".

    `zone` is that of times that are written without one.

    Raises:
        InputError: for the first value that does not fit, with its row from 1, and for types of which none does.
    """
    if raw.dtype == dtype or raw.dtype == pl.Null:
        return raw.cast(dtype)
    if isinstance(dtype, pl.List):
        if not isinstance(raw.dtype, pl.List):
            raise InputError(f"Column {raw.name!r} of {what} takes lists, got {raw.dtype}: give Parquet or JSON lines.")
        flat = as_type(raw.explode(empty_as_null=True), dtype.inner, what, zone)  # type: ignore[arg-type]
        return _as_lists(raw, flat)
    if isinstance(raw.dtype, pl.Categorical | pl.Enum):
        return as_type(raw.cast(pl.String), dtype, what, zone)
    converted = _convert(raw, dtype, zone)
    if converted is None:
        raise InputError(f"Column {raw.name!r} of {what} takes {_words(dtype)}, got {raw.dtype}.")
    unfit = raw.is_not_null() & converted.is_null()
    if unfit.any():
        row = unfit.arg_true()[0]
        raise InputError(f"Column {raw.name!r} of {what} takes {_words(dtype)}, but row {row + 1} holds {raw[row]!r}.")
    return converted


def _as_lists(raw: pl.Series, flat: pl.Series) -> pl.Series:
    """Elements, those of empty and null lists as one null, back in the lists they come from."""
    sizes = raw.list.len().fill_null(0).clip(1, None)
    row = pl.int_range(0, len(raw), eager=True).repeat_by(sizes).explode(empty_as_null=True)
    lists = pl.DataFrame({"row": row, raw.name: flat}).group_by("row", maintain_order=True).agg(pl.col(raw.name))
    return lists[raw.name].set(raw.is_null(), None)


def _convert(raw: pl.Series, dtype: Dtype, zone: str) -> pl.Series | None:
    """Null where a value does not fit; None where no value of this type does."""
    if dtype == pl.String:
        return _to_text(raw)
    if dtype == TIME:
        return _to_time(raw, zone)
    if dtype == pl.Date:
        return _each(raw, _date, pl.Date) if raw.dtype == pl.String else _cast_from(raw, dtype, pl.Date, pl.Datetime)
    if dtype == pl.Boolean:
        words = {"true": True, "false": False}
        if raw.dtype != pl.String:
            return None
        return raw.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
    if raw.dtype == pl.String or raw.dtype.is_numeric():
        return _to_number(raw, dtype)
    return None


def _to_text(raw: pl.Series) -> pl.Series | None:
    if raw.dtype.is_integer() or raw.dtype.is_decimal():
        return raw.cast(pl.String)
    if raw.dtype == pl.Boolean:
        return raw.cast(pl.String)
    if raw.dtype.is_float():  # what was read as numbers though it is text: 7.0 is 7
        return _to_number(raw, pl.Int64).cast(pl.String)
    return None


def _to_number(raw: pl.Series, dtype: Dtype) -> pl.Series:
    number = raw.cast(dtype, strict=False)
    if raw.dtype == pl.String and dtype == pl.Float64:
        return number.set(number.is_nan().fill_null(False), None)
    if raw.dtype.is_float() and dtype != pl.Float64:
        whole = (raw == raw.floor()) & (raw.abs() < 2**53)
        return number.set(~whole.fill_null(True), None)
    return number


def _to_time(raw: pl.Series, zone: str) -> pl.Series | None:
    """Datetimes of any zone, those without one in `zone`; days, which begin there; ISO text; integers since 1970."""
    if raw.dtype == pl.Date:
        return _in_zone(raw.cast(pl.Datetime("us")), zone)
    if isinstance(raw.dtype, pl.Datetime):
        return _in_zone(raw.cast(pl.Datetime("us")), zone) if raw.dtype.time_zone is None else raw.cast(TIME)
    if raw.dtype == pl.String:
        return _each(raw, partial(_time, zone=ZoneInfo(zone)), TIME)
    if raw.dtype.is_integer():
        return _each(raw, _moment, TIME)
    return None


def _in_zone(naive: pl.Series, zone: str) -> pl.Series:
    """Of an hour that comes twice the first, as in preparation; null for one that never comes."""
    return naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def _time(text: str, zone: tzinfo) -> datetime | None:
    if text.strip().lstrip("-").isdigit():
        return _moment(int(text))
    named = text.strip().endswith(" UTC")
    moment = datetime.fromisoformat(text.strip().removesuffix(" UTC") + "+00:00" * named)
    if moment.tzinfo:
        return moment.astimezone(UTC)
    moment_utc = moment.replace(tzinfo=zone).astimezone(UTC)
    never = moment_utc.astimezone(zone).replace(tzinfo=None) != moment
    return None if never else moment_utc


def _moment(number: int) -> datetime | None:
    micros = next((number * factor for limit, factor in UNITS if abs(number) < limit), number // 1000)
    return datetime.fromtimestamp(micros // 10**6, UTC).replace(microsecond=micros % 10**6)


def _date(text: str) -> date | None:
    return date.fromisoformat(text.strip())


def _each(raw: pl.Series, read: Callable[[Any], Any], dtype: Dtype) -> pl.Series:
    values = []
    for value in raw:
        try:
            values.append(None if value is None else read(value))
        except (ValueError, OverflowError, OSError):
            values.append(None)
    return pl.Series(raw.name, values, dtype=dtype)


def _cast_from(raw: pl.Series, dtype: Dtype, *kinds: type[pl.DataType]) -> pl.Series | None:
    return raw.cast(dtype) if isinstance(raw.dtype, kinds) else None


def _words(dtype: Dtype) -> str:
    return next((words for kind, words in WORDS.items() if dtype == kind), str(dtype))


def item_ids(given: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    """Item ids as a caller has them, as the catalogue's type; null for an integer beyond what that type holds.

    A catalogue of integers takes integers and their text, one of text takes text.

    Raises:
        InputError: for anything else: a float, None, a boolean, text that is no integer.
    """
    numbers = dtype.is_integer()
    for value in given:
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        if not isinstance(value, str) and not (is_integer and numbers):
            hint = f" Give it as text: {str(value)!r}." if is_integer else ""
            what = f"{value!r}, a {type(value).__name__}"
            raise InputError(f"Item ids of this model are {'integers' if numbers else 'text'}, got {what}.{hint}")
    texts = pl.Series([str(value) if isinstance(value, str) else str(int(value)) for value in given], dtype=pl.String)
    if dtype == pl.String:
        return texts
    wrong = ~texts.str.contains(DIGITS) if numbers else texts.cast(dtype, strict=False).is_null()
    if wrong.any():
        value = texts.filter(wrong)[0]
        raise InputError(f"Item ids of this model are {'integers' if numbers else dtype}, got {value!r}.")
    return texts.cast(dtype, strict=False)
