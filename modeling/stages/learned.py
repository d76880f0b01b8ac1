"""Whether a model learned from what is tested on.

By days, a model learned from all before its own test day. Where last items are hidden, there are no days: histories grow at
their ends, so a model of the same or of older histories never read the last items of newer ones; one of histories that go on
after these may have.
"""

from __future__ import annotations

from typing import Any

from schemas.artifacts import Manifest
from schemas.columns import DAY, END

UNTIL = "until"  # the fact of a model


def end_of(sessions: Manifest) -> dict[str, Any]:
    """{"newest_event": "2026-03-08T23:59:59.000000", "events": 117958}; no time where sessions have none."""
    import polars as pl

    files = sorted((sessions.folder / "sessions").glob(f"{DAY}=*/*.parquet"))
    newest = None
    if files:
        table = pl.scan_parquet(files, glob=False, hive_partitioning=False)
        newest = table.select(pl.col(END).max()).collect().item()
    return {"newest_event": newest.isoformat() if newest else None, "events": sessions.facts["events"]}


def saw_later(model: Manifest, sessions: Manifest) -> bool | None:
    """Whether a model was trained on histories that go on after these; None where its folder does not say.

    By the newest event; where that is the same, or there are no times, by the number of events: of events that are among these
    the last one of a history is hidden, or not among them. A refitted model read the last items, too.
    """
    own, tested = model.facts.get(UNTIL), end_of(sessions)
    if own is None:
        return None
    if own["newest_event"] and tested["newest_event"] and own["newest_event"] != tested["newest_event"]:
        return bool(own["newest_event"] > tested["newest_event"])
    return bool(model.facts.get("refit_of") or own["events"] > tested["events"])


def how_it_learned(model: Manifest, sessions: Manifest, test_day: str | None) -> str:
    """How a model may have read what is tested on in these sessions; empty where it did not."""
    own = model.facts.get("test_day")
    if own and test_day:
        learned = f"it learned from the days before {own}, and so from {test_day}, which is tested on here"
        return learned if own > test_day else ""
    if own or test_day:
        tested = f"{test_day} is" if test_day else "last items of sessions are"
        return f"it learned from {f'all days before {own}' if own else 'sessions of all days'}, and {tested} tested on here"
    later = saw_later(model, sessions)
    if later is None:
        return "its folder does not say until when its histories went, so it may have read the last items that are tested on"
    until = model.facts[UNTIL]["newest_event"] or f"{model.facts[UNTIL]['events']:,} events"
    return f"its histories go on after these (until {until}), so it may have read the last items" if later else ""
