"""Turn what files hold into moments and dates. What is none becomes null; the caller keeps the original.

Forms that are read (FORMS says so to people): datetimes and dates; ISO 8601 text with T or a space, with or without an
offset, also ` UTC`; numbers of a unit since 1970; text of the forms that `time_format` names, and then no other text.

    2024-05-01 10:00:00 UTC, 2024-05-01T12:00:00+0200, 1714557600, "1714557600000"  ->  2024-05-01 10:00:00+00:00

A moment lies in the years 1 to 9999. A stored datetime beyond them, minus infinity say, is read as the first or the last
moment: the checks not_before and not_in_future set it aside, and nothing that computes with it can overflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from schemas.errors import InputError

TIME = pl.Datetime("us", "UTC")
FIRST, LAST = (
    -62_135_596_800_000_000,
    253_402_300_799_999_999,
)  # microseconds: the years 1 to 9999, all that Python holds
FIRST_DAY, LAST_DAY = -719_162, 2_932_896  # the same in days since 1970
LATEST = 100_000_000_000_000_000  # microseconds: the year 5138. A number that is later is no time but a wrong unit.
# Integers below the limit are of that unit: 1e11 seconds is the year 5138, 1e11 milliseconds is March 1973.
UNITS = {"s": (10**11, 10**6), "ms": (10**14, 10**3), "us": (10**17, 1)}
UNSET = (
    253_402_128_000_000,
    253_402_387_200_000,
)  # microseconds: 9999-12-30 to 10000-01-02 taken for the next finer unit
OFFSET_ISO = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z")  # %#z reads Z, +02, +0200 and +02:00
NAIVE_ISO = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
FORMS = (
    "datetimes and dates, ISO 8601 text (2024-05-01T10:00:00Z, 2024-05-01 10:00:00+0200, 2024-05-01 10:00:00 UTC, "
    "2024-05-01), numbers since 1970 in the unit events.time_unit (1714557600), and text of the form events.time_format, "
    'such as "%d/%m/%Y %H:%M"'
)


@dataclass(frozen=True)
class TimeForms:
    """How times are written: the unit of numbers, the zone of times without one, the forms of text ((): ISO 8601)."""

    unit: str = "auto"
    zone: str = "UTC"
    formats: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise InputError for a form that is none."""
        for pattern in self.formats:
            try:
                pl.Series(["2024-05-01"]).str.to_datetime(pattern, time_unit="us", strict=False, cache=False)
            except pl.exceptions.PolarsError as error:
                raise InputError(
                    f"events.time_format: {pattern!r} is no form of times ({str(error).partition(chr(10))[0]}); "
                    "write codes such as %d/%m/%Y %H:%M"
                ) from None


def to_time(value: pl.Expr, stored: pl.DataType, forms: TimeForms) -> pl.Expr:
    """A moment as Datetime("us", "UTC"), of a column that stores datetimes, dates, numbers or text.

    Times without an offset are of the forms' zone. Where its clocks go back, a time that comes twice is the earlier of the
    two; where they go forward, a time that does not come is null.
    """
    if isinstance(stored, pl.Datetime):
        held = _held(value, stored)
        return held if stored.time_zone else _in_zone(held, forms.zone)
    if stored == pl.Date:
        days = value.to_physical().clip(FIRST_DAY, LAST_DAY).cast(pl.Date)
        return _in_zone(days.cast(pl.Datetime("us")), forms.zone)
    if stored == pl.String:
        return _from_text(value.str.strip_chars(), forms)
    whole = stored.is_integer() or (isinstance(stored, pl.Decimal) and stored.scale == 0)
    return _from_number(value.cast(pl.Int64 if whole else pl.Float64, strict=False), forms.unit)


def to_date(value: pl.Expr, stored: pl.DataType, forms: TimeForms) -> pl.Expr:
    """A date: that of a moment in the forms' zone, or of text."""
    if stored == pl.Date:
        return value.to_physical().clip(FIRST_DAY, LAST_DAY).cast(pl.Date)
    moment = to_time(value, stored, forms)
    return (moment if forms.zone == "UTC" else moment.dt.convert_time_zone(forms.zone)).dt.date()


def hold_time(value: pl.Expr, stored: pl.DataType) -> pl.Expr:
    """A stored datetime or date as it is, in microseconds, kept in the years 1 to 9999 so that it can be shown."""
    if isinstance(stored, pl.Datetime):
        held = _held(value, stored)
        return held.dt.convert_time_zone(stored.time_zone) if stored.time_zone else held
    return value.to_physical().clip(FIRST_DAY, LAST_DAY).cast(pl.Date)


def _held(value: pl.Expr, stored: pl.Datetime) -> pl.Expr:
    """Datetime("us") of the years 1 to 9999, in UTC when what is stored has a zone."""
    number = value.to_physical()
    match stored.time_unit:
        case "ms":
            number = number.clip(FIRST // 1000, LAST // 1000) * 1000
        case "us":
            number = number.clip(FIRST, LAST)
        case _:
            number = number // 1000  # nanoseconds reach from 1677 to 2262
    return number.cast(pl.Datetime("us", "UTC" if stored.time_zone else None))


def _from_text(text: pl.Expr, forms: TimeForms) -> pl.Expr:
    def parse(value: pl.Expr, pattern: str, zone: str | None) -> pl.Expr:
        options: dict[str, Any] = {"strict": False, "cache": False, "exact": True}
        return value.str.to_datetime(pattern, time_unit="us", time_zone=zone, **options)

    if forms.formats:
        aware = [parse(text, pattern, "UTC") for pattern in forms.formats if _has_offset(pattern)]
        naive = [parse(text, pattern, None) for pattern in forms.formats if not _has_offset(pattern)]
        numbers = []
    else:
        # One spelling for all: `2024-05-01 10:00:00 UTC` and `2024-05-01 10:00:00 +0200` without their spaces.
        text = text.str.replace(r"^([0-9-]+) +", "${1}T").str.replace(r" *(?:UTC|GMT)$", "Z")
        text = text.str.replace(" ", "", literal=True).str.replace(",", ".", literal=True)
        aware = [parse(text, pattern, "UTC") for pattern in OFFSET_ISO]
        naive = [parse(text, pattern, None) for pattern in NAIVE_ISO]
        numbers = [_from_number(text.cast(dtype, strict=False), forms.unit) for dtype in (pl.Int64, pl.Float64)]
    moments = [_inside(moment) for moment in aware]
    if naive:
        moments.append(_in_zone(_inside(pl.coalesce(naive)), forms.zone))
    return pl.coalesce(*moments, *numbers)


def _has_offset(pattern: str) -> bool:
    return any(code in pattern for code in ("%z", "%:z", "%#z", "%+", "%s"))


def _inside(moment: pl.Expr) -> pl.Expr:
    number = moment.to_physical()
    return pl.when((number >= FIRST) & (number <= LAST)).then(moment)


def _in_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    if zone == "UTC":
        return naive.dt.replace_time_zone("UTC")
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return _inside(local.dt.convert_time_zone("UTC"))


def _from_number(value: pl.Expr, unit: str) -> pl.Expr:
    if unit == "ns":
        return _as_time(value // 1000)
    if unit != "auto":
        limit, factor = UNITS[unit]
        # Values past the limit would overflow when multiplied.
        return _as_time(pl.when((value > -limit) & (value < limit)).then(value * factor))
    microseconds = value // 1000
    for limit, factor in reversed(UNITS.values()):
        inside = (value > -limit) & (value < limit)
        microseconds = pl.when(inside).then(value * factor).otherwise(microseconds)
    # The last day of the year 9999 says that there is no time; by its size alone it would be one of the next finer unit.
    unset = (value >= UNITS["s"][0]) & (microseconds >= UNSET[0]) & (microseconds < UNSET[1])
    return _as_time(pl.when(~unset).then(microseconds))


def _as_time(microseconds: pl.Expr) -> pl.Expr:
    whole = microseconds.cast(pl.Int64, strict=False)
    inside = (whole >= FIRST) & (whole < LATEST)
    return pl.when(inside).then(whole).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
