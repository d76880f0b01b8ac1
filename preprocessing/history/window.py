"""Which days are used: from the first wanted day to the test day, both inclusive, in the dataset's time zone."""

from __future__ import annotations

from datetime import date, timedelta
from zoneinfo import ZoneInfo

from preprocessing.execution.reading import Source
from preprocessing.sessions import Window
from schemas.columns import TIMESTAMP
from schemas.errors import InputError, OutsideError

FULL_DAY = 0.25  # a day with less of a typical day's events is not full; Sundays of a weekday business should be


def choose_window(counts: dict[date, int], source: Source, until: date | None, days: int | None) -> Window:
    """The window for `until` and `days`, given the events of each day. Without `until`, it goes up to the last full day, or
    to the end for leave_one_out.

    Raises:
        InputError: when they do not fit the data, or a split by day has no day to train on.
    """
    dataset = source.dataset
    if days is not None and days < (2 if dataset.split == "day" else 1):
        raise InputError(f"days is {days}; at least 2 are needed: one to train on and one to test on.")
    if TIMESTAMP not in dataset.events.columns:
        if until or days:
            raise InputError(f"until and days need times, and {dataset.name!r} maps no timestamp.")
        return Window()
    if dataset.since:
        counts = {day: count for day, count in counts.items() if day >= dataset.since}
    if not counts:
        since = f" from {dataset.since} on" if dataset.since else ""
        raise InputError(
            f"None of the {source.index.rows:,} events has a time{since} that can be read and is neither in the future nor "
            f"before the check not_before: {source.unread_times()}"
        )
    first, last = min(counts), max(counts)
    if until is not None and not first <= until <= last:
        raise OutsideError(until, first, last)
    if dataset.split == "leave_one_out" and until is None:
        return Window(last - timedelta(days=days - 1) if days else None, None)
    today = source.now.astimezone(ZoneInfo(dataset.time_zone)).date()
    test_day = until or last_full_day(counts, today)
    if dataset.split == "day" and test_day == first:
        raise InputError(
            f"The test day would be {test_day}, the first day of the data ({first} to {last}): nothing to train on. "
            "At least two full days of events are needed."
        )
    return Window(test_day - timedelta(days=days - 1) if days else None, test_day)


def last_full_day(counts: dict[date, int], today: date) -> date:
    """The latest day before today that is not cut short.

    A typical day is the one in which the median event lies: half of all events fall on days at least as busy. Unlike the
    median over days, it is not moved by a long tail of days with a handful of events.
    """
    past = {day: count for day, count in counts.items() if day < today}
    if not past:
        raise InputError(f"All events are of today ({today}) or later; a day is used when it is over.")
    typical, seen, total = 0, 0, sum(past.values())
    for count in sorted(past.values(), reverse=True):
        typical, seen = count, seen + count
        if 2 * seen >= total:
            break
    return max(day for day, count in past.items() if count >= FULL_DAY * typical)
