"""The cursor of a query: how far rows were read, and from where the next night reads on.

    2024-05-03 23:59:58 as the newest, 24 hours of overlap     -> from 2024-05-02 23:59:58 on
    "2024-05-03 23:59:58", text in ISO 8601                    -> from "2024-05-02 23:59:58" on, compared as text
    9,000,000, 10,000 numbers of overlap                       -> from 8,990,000 on

A time in the future, of a clock that went wrong, is not taken for the newest: nothing after it would be read any more.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any, Literal

from schemas.errors import InputError
from schemas.sources import EventQuery

Kind = Literal["number", "time", "time with a zone", "date", "text"]
EAST = timedelta(hours=14)  # a time without a zone may be ahead of UTC by so much


def kind_of(value: Any, column: str) -> Kind:
    """
    Raises:
        InputError: for a value that cannot be a cursor.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return "number"
    if isinstance(value, datetime):
        return "time with a zone" if value.tzinfo else "time"
    if isinstance(value, date):
        return "date"
    if isinstance(value, str) and _of_text(value) is not None:
        return "text"
    raise InputError(
        f"database.events.cursor: {column} holds {value!r}; a cursor is a time, a date, text in ISO 8601 or an integer."
    )


def written(value: Any) -> str:
    """A cursor's value as a record keeps it."""
    return value.isoformat() if isinstance(value, date) else str(value)


def read(kind: Kind, text: str) -> Any:
    """A value from a record."""
    if kind == "number":
        return int(text)
    if kind == "date":
        return date.fromisoformat(text)
    return text if kind == "text" else datetime.fromisoformat(text)


def since(kind: Kind, high: Any, query: EventQuery) -> Any:
    """The first value to read again, given the highest that was read."""
    back = timedelta(hours=query.overlap_hours)
    try:
        if kind == "number":
            return high - query.overlap_numbers
        if kind == "date":
            return (datetime(high.year, high.month, high.day) - back).date()
        if kind != "text":
            return high - back
    except OverflowError:
        return read(kind, "0001-01-02T00:00:00+00:00" if kind == "time with a zone" else "0001-01-02")
    return _as_text(_of_text(high), back, high)


def newest(kind: Kind, high: Any, now: datetime) -> Any:
    """The highest value as far as it is not in the future."""
    if kind == "number":
        return high
    if kind == "date":
        return min(high, (now + EAST).date())
    if kind == "time with a zone":
        return min(high, now)
    if kind == "time":
        return min(high, (now + EAST).replace(tzinfo=None))
    zone = getattr(_of_text(high), "tzinfo", None)
    return min(high, _as_text(now.astimezone(zone) if zone else now + EAST, timedelta(0), high))


def first(query: EventQuery) -> Any:
    """`start` of the query as it is compared; None where it has none. Midnight is the day: text may have days alone."""
    start = query.start
    return start.date() if isinstance(start, datetime) and start.time() == time() and not start.tzinfo else start


def _of_text(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text[4:5] == text[7:8] == "-" else None
    except ValueError:
        return None


def _as_text(moment: datetime | None, back: timedelta, like: str) -> str:
    """A time in the form of another text, to the second: it stands before all that lie in that second."""
    assert moment is not None
    try:
        earlier = moment.replace(tzinfo=None) - back
    except OverflowError:
        return "0001-01-01"
    return earlier.isoformat(sep="T" if "T" in like else " ", timespec="seconds")[: max(len(like), 10)]
