"""What a person wants to know of prepared sessions: where the rows went and what came of them, as names and values."""

from __future__ import annotations

from typing import Any


def told(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """One line a fact, in the order of the rows' way."""
    counts = [("rows in", facts["rows_in"]), ("carried in from the day before", facts["carried_in"])]
    counts += [(f"quarantined: {rule}", count) for rule, count in facts["quarantined"].items()]
    counts += [(f"dropped: {name}", count) for name, count in facts["dropped"].items()]
    counts += [("still open", facts["still_open"]), ("events", facts["events"]), ("sessions", facts["sessions"])]
    counts += [("items", facts["items"]), ("new items on the last day", facts["new_items"])]
    lengths = ", ".join(f"{name} {length:.0f}" for name, length in facts["lengths"].items())
    return [(name, f"{count:,}") for name, count in counts] + [("session lengths on the last day", lengths)]


def seconds(facts: dict[str, Any]) -> str:
    """How long each phase took."""
    return ", ".join(f"{phase} {took:.1f}" for phase, took in facts["seconds"].items())


def last_profile(facts: dict[str, Any]) -> str:
    """The page about the last day, below the sessions' folder."""
    return f"profiles/day={facts['test_day'] or 'undated'}/profile.html"
