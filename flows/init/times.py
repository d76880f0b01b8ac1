"""Whether a column holds times, and how they are written.

"31.12.2024 23:59" -> format %d.%m.%Y %H:%M       1714557600000 -> numbers in ms       20240501 -> format %Y%m%d
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from preprocessing.source.times import TimeForms, to_time

EARLIEST, AHEAD = datetime(1990, 1, 1, tzinfo=UTC), timedelta(days=2)  # times outside are none, or of no use
FITS = 0.98  # share of values that a form has to read
TRIED = 5_000  # values on which forms are tried
SECONDS = (" %H:%M:%S", " %H:%M:%S%.f", " %H:%M", "T%H:%M:%S", " %I:%M:%S %p", " %I:%M %p", "")
DAYS = (
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%Y/%m/%d",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y.%m.%d",
    "%d.%m.%y",
    "%d/%m/%y",
    "%m/%d/%y",
)
FORMATS = (
    *(day + clock for day in DAYS for clock in SECONDS),
    *("%Y年%m月%d日 %H:%M:%S", "%Y年%m月%d日 %H:%M", "%Y年%m月%d日%H时%M分%S秒", "%Y年%m月%d日"),
    *("%Y%m%d%H%M%S", "%Y%m%d %H:%M:%S", "%Y%m%d %H%M%S", "%Y%m%d"),
    *("%d %b %Y %H:%M:%S", "%d %b %Y %H:%M", "%d %b %Y", "%b %d, %Y %H:%M:%S", "%b %d, %Y", "%b %d, %Y %I:%M:%S %p"),
    *("%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%d-%b-%Y %H:%M:%S", "%d-%b-%Y"),
)
SWAPPED = {"%d/%m/": "%m/%d/", "%m/%d/": "%d/%m/", "%d-%m-": "%m-%d-", "%m-%d-": "%d-%m-", "%d.%m.": "%m.%d."}
CLOCK = r"^\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?$"


@dataclass(frozen=True)
class TimeForm:
    """How a column's times are written, and what they are."""

    formats: tuple[str, ...]
    """Of text; empty for stored times, ISO 8601 and numbers."""
    words: str
    """For people: in which form."""
    first: datetime
    last: datetime
    share: float
    """Of all values, how many can be read."""
    has_clock: bool
    has_zone: bool
    other: str = ""
    """Another form that reads all of the values as well."""

    @property
    def days(self) -> int:
        """From the first to the last day, both included."""
        return (self.last.date() - self.first.date()).days + 1


def time_form(values: pl.Series, day_first: bool = True) -> TimeForm | None:
    """How the values of a column without nulls are times; None when they are none.

    `day_first` decides between 3/4/2024 as 3 April and as 4 March where all values are both.
    """
    dtype = values.dtype
    if dtype == pl.Boolean or dtype.is_nested() or values.is_empty() or (dtype.is_float() and not _is_whole(values)):
        return None
    if dtype.is_temporal():
        if not isinstance(dtype, pl.Datetime | pl.Date):
            return None
        zone = isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
        return _measure(values, (), "times as the file stores them", zone)
    if dtype.is_numeric():
        of_unit = _measure(values, (), f"numbers: {_unit(values)} since 1970", True)
        if of_unit or not dtype.is_integer():
            return of_unit
        digits = values.cast(pl.String)
        return _by_format(digits, digits.head(TRIED), day_first)
    text = values.cast(pl.String).str.strip_chars()
    few = text.head(TRIED)
    if _fits(few, ()):
        number = text.cast(pl.Float64, strict=False)
        if number.null_count() == 0:
            return _measure(text, (), f"numbers: {_unit(number)} since 1970", True)
        zone = bool(few.str.contains(r"(Z|UTC|GMT|[+-]\d{2}:?\d{2})$").mean() or 0)
        return _measure(text, (), "ISO 8601", zone)
    return _by_format(text, few, day_first)


def of_clock(values: pl.Series) -> bool:
    """Whether all values are times of day alone, such as 23:59."""
    return values.dtype == pl.String and bool(values.head(TRIED).str.strip_chars().str.contains(CLOCK).all())


def _by_format(text: pl.Series, few: pl.Series, day_first: bool) -> TimeForm | None:
    fitting = [pattern for pattern in _reading(few.head(20)) if _fits(few, (pattern,)) and _fits(text, (pattern,))]
    if not fitting:
        return None
    pattern = fitting[0]
    swapped = next((pattern.replace(day, month) for day, month in SWAPPED.items() if pattern.startswith(day)), "")
    other = swapped if swapped in fitting else ""
    if other:
        ordered = {form for form in (pattern, other) if moments_of(text, (form,)).is_sorted()}
        wanted = min(ordered) if len(ordered) == 1 else pattern if pattern.startswith("%d") == day_first else other
        pattern, other = wanted, other if wanted == pattern else pattern
    return _measure(text, (pattern,), f"text of the form {pattern}", "%z" in pattern, other)


def _reading(values: pl.Series) -> list[str]:
    """Forms that read some values; none is tried where a value has no digit."""
    if not values.str.contains(r"\d").all():
        return []
    column = pl.col(values.name)
    tried = [
        to_time(column, values.dtype, TimeForms(formats=(pattern,))).is_not_null().any().alias(pattern)
        for pattern in FORMATS
    ]
    row = values.to_frame().select(tried).row(0, named=True)
    return [pattern for pattern, reads in row.items() if reads]


def _fits(values: pl.Series, formats: tuple[str, ...]) -> bool:
    moments = moments_of(values, formats)
    inside = ((moments >= EARLIEST) & (moments <= datetime.now(UTC) + AHEAD)).fill_null(False)
    return bool(inside.mean() >= FITS)  # type: ignore[operator]


def moments_of(values: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    """Values as moments; null where the forms do not read them."""
    forms = TimeForms(formats=formats)
    return values.to_frame("value").select(to_time(pl.col("value"), values.dtype, forms))["value"]


def _measure(
    values: pl.Series, formats: tuple[str, ...], words: str, has_zone: bool, other: str = ""
) -> TimeForm | None:
    if not _fits(values, formats):
        return None
    moments = moments_of(values, formats).drop_nulls()
    moments = moments.filter((moments >= EARLIEST) & (moments <= datetime.now(UTC) + AHEAD))
    first, last = moments.min(), moments.max()
    assert isinstance(first, datetime) and isinstance(last, datetime)
    has_clock = bool((moments.dt.time().n_unique() > 1) or first.time() != datetime.min.time())
    return TimeForm(formats, words, first, last, len(moments) / len(values), has_clock, has_zone, other)


def _unit(values: pl.Series) -> str:
    size = abs(float(values.cast(pl.Float64).median() or 0))  # type: ignore[arg-type]
    return (
        "seconds"
        if size < 1e11
        else "milliseconds"
        if size < 1e14
        else "microseconds"
        if size < 1e17
        else "nanoseconds"
    )


def _is_whole(values: pl.Series) -> bool:
    return bool((values.is_nan() | (values == values.round())).all() or values.max() > 1e8)  # type: ignore[operator]
