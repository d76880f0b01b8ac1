"""Days that a scheduled night expects and does not find: the source has stopped, or its newest day is cut short."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from flows.settings.settings import Settings
from schemas.artifacts import Manifest

SCHEDULED = "auto-scheduled"  # Prefect's tag of runs that a schedule asked for
WEEK = timedelta(days=7)
FULL_DAY = 0.25  # of a usual day's sessions, as preparation has it of events
MOST_NAMED = 7


def due_of_run() -> datetime | None:
    """When a schedule asked for the flow run under way; None for a run that a person or another run began."""
    from prefect import runtime

    asked = SCHEDULED in (runtime.flow_run.tags or [])
    return runtime.flow_run.scheduled_start_time if asked else None


def late(settings: Settings, sessions: Manifest) -> list[str]:
    """What to say when a scheduled night for the newest day has none of yesterday's; empty for other nights.

    Test day 15 March, due on the 18th: the days 16 and 17. Weekdays that were no full day the week before either are not
    waited for.
    """
    tested = sessions.facts.get("test_day")
    if settings.due is None or settings.data.until is not None or tested is None:
        return []
    newest, due = date.fromisoformat(tested), settings.due.astimezone(ZoneInfo(settings.dataset.time_zone)).date()
    days = [newest + timedelta(days=number) for number in range(1, (due - newest).days)]
    expected = [day for day in days if not _is_quiet(sessions, day)]
    if not expected:
        return []
    named = ", ".join(map(str, expected[:MOST_NAMED]))
    more = f" and {len(expected) - MOST_NAMED} more days" if len(expected) > MOST_NAMED else ""
    return [
        f"No full day of events since {newest}: {named}{more} had none when this night was due, or less than a quarter of what "
        "is usual. Look whether the source still gets events; when they come, all days are done in order."
    ]


def _is_quiet(sessions: Manifest, day: date) -> bool:
    """Whether the newest such weekday that these sessions reach back to was no full day; the evening before may end in it."""
    newest, first = date.fromisoformat(sessions.facts["test_day"]), date.fromisoformat(sessions.facts["first_day"])
    while day > newest:
        day -= WEEK
    usual = median(sessions.facts["days"].values())
    return day >= first and sessions.facts["days"].get(str(day), 0) < FULL_DAY * usual
