"""The body of a request -> what is asked for each session. Nothing here knows a model.

{"items": ["lamp-1", "lamp-7"], "k": 10}                                   one session, bare item ids, oldest first
{"events": [{"item_id": "lamp-1", "event_type": "view"}, ...]}             one session, events as they are in the log
{"sessions": [{"session_id": "s1", "items": [...]}, {"events": [...]}]}    many
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from modeling.service.api.body import read_object, require_whole, short
from modeling.service.api.limits import Limits
from modeling.service.api.log import Log
from schemas.columns import ITEM_ID, USER_ID
from schemas.errors import InputError, unknown

SESSION_KEYS = ("session_id", "user_id", "items", "events", "asked_at")
KEYS = ("sessions", *SESSION_KEYS, "k", "hide_seen", "explain")
MOST_REASONS = 10


@dataclass(frozen=True)
class Asked:
    """One session and what is asked of it. Values of events are text, as they are written; `error` says what is wrong."""

    key: Any = None
    user: str | None = None
    events: tuple[dict[str, Any], ...] = ()
    asked_at: datetime | None = None
    k: int = 10
    hide_seen: bool | None = None
    explain: int = 0
    labels: bool = False
    error: str = ""


@dataclass(frozen=True)
class Question:
    """The sessions of a request; `single` where it is of one, whose fault is the request's."""

    sessions: tuple[Asked, ...]
    single: bool = field(default=False, kw_only=True)


def read_question(body: bytes, limits: Limits, log: Log, *, labels: bool = False) -> Question:
    """What a body asks. Events are as the `log` has them.

    Raises:
        InputError: for what is wrong with the request as a whole, and in a request of one session with that.
    """
    given = read_object(body, '{"items": ["lamp-1"]}', Decimal)
    for name in given:
        if name not in KEYS:
            raise unknown("key of the request", name, KEYS)
    common = {
        "k": _count(given.get("k", min(10, limits.items)), "k", limits.items),
        "hide_seen": _flag(given.get("hide_seen"), "hide_seen"),
        "explain": _reasons(given.get("explain", False)),
        "labels": labels,
    }
    own = [name for name in SESSION_KEYS if name in given]
    if "sessions" not in given:
        asked = _session(given, "", limits, log, common)
        if asked.error:
            raise InputError(asked.error)
        return Question((asked,), single=True)
    if own:
        raise InputError(
            f"The request has sessions and {', '.join(own)}: put {own[0]} into a session, or leave sessions out."
        )
    sessions = given["sessions"]
    if not isinstance(sessions, list):
        raise InputError(f"sessions is a list of objects, got {short(sessions)}.")
    if not 1 <= len(sessions) <= limits.sessions:
        raise InputError(
            f"sessions holds {len(sessions):,} sessions; 1 to {limits.sessions:,} are allowed in a request."
        )
    return Question(
        tuple(_session(session, f"sessions[{place}]", limits, log, common) for place, session in enumerate(sessions))
    )


def _session(given: Any, where: str, limits: Limits, log: Log, common: dict[str, Any]) -> Asked:
    """One session; a fault in it becomes its `error`."""
    key = given.get("session_id") if isinstance(given, dict) else None
    try:
        return Asked(key=key, **_checked(given, f"{where}." if where else "", limits, log), **common)
    except InputError as error:
        return Asked(key=key, error=str(error), **common)


def _checked(given: Any, where: str, limits: Limits, log: Log) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"{where[:-1]} is an object with items or events, got {short(given)}.")
    for name in given:
        if name not in SESSION_KEYS and where:
            raise unknown(f"key in {where[:-1]}", name, SESSION_KEYS)
    if "items" in given and "events" in given:
        raise InputError(f"{where}items and {where}events: give one of them.")
    if "items" not in given and "events" not in given:
        raise InputError(
            f"{where[:-1] or 'The request'} has neither items nor events. Give item ids, oldest first, or events as they are "
            "in the log; an empty list for a session that has none yet."
        )
    name = "items" if "items" in given else "events"
    values = given[name]
    if not isinstance(values, list):
        raise InputError(f"{where}{name} is a list, got {short(values)}.")
    if len(values) > limits.events:
        raise InputError(
            f"{where}{name} holds {len(values):,}; {limits.events:,} are allowed. Send the most recent ones."
        )
    read = _of_item if name == "items" else _of_event
    events = tuple(read(value, f"{where}{name}[{place}]", log) for place, value in enumerate(values))
    user = given.get("user_id")
    if user is None:
        user = next((event[USER_ID] for event in events if event.get(USER_ID) is not None), None)
    if user is not None and (isinstance(user, bool | list | dict)):
        raise InputError(f"{where}user_id is text or an integer, got {short(user)}.")
    user = None if user is None else require_whole(str(user), f"{where}user_id")
    return {"events": events, "user": user, "asked_at": _moment(given, where)}


def _of_item(value: Any, where: str, log: Log) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where} is an item id, text or an integer, got {short(value)}.")
    return {ITEM_ID: require_whole(str(value), where)}


def _of_event(value: Any, where: str, log: Log) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f'{where} is an object such as {{"item_id": "lamp-1"}}, got {short(value)}.')
    names, words = log.names, log.null_words
    texts = {name: _text(inner, words, f"{where}.{name}") for name, inner in value.items()}
    event = {name: text for name, text in texts.items() if name not in names}
    event |= {names[name]: text for name, text in texts.items() if name in names}
    if event.get(ITEM_ID) is None and ITEM_ID not in log.makes:
        theirs = next((name for name, ours in names.items() if ours == ITEM_ID), ITEM_ID)
        raise InputError(f"{where} has no {theirs}; there are {', '.join(map(str, value)) or 'no keys'}.")
    return event


def _text(value: Any, null_words: frozenset[str], where: str) -> Any:
    """Values as they are written; of lists, those of their elements, which are no lists: those are written as JSON."""
    if isinstance(value, list):
        return [_text(json.dumps(e, default=str) if isinstance(e, list) else e, null_words, where) for e in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return json.dumps(value, default=str)
    if value is None or isinstance(value, str):
        return None if value is None or value in null_words else require_whole(value, where)
    return str(value)


def _moment(given: dict[str, Any], where: str) -> datetime | None:
    value = given.get("asked_at")
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}asked_at is a time such as 2026-03-08T09:00:00Z, got {short(value)}.") from None


def _count(value: Any, name: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InputError(f"{name} is an integer from 1 to {most:,}, got {short(value)}.")
    return value


def _flag(value: Any, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{name} is true or false, got {short(value)}.")
    return value


def _reasons(value: Any) -> int:
    """How many events are named for each item: true is three."""
    return (
        3 * value
        if isinstance(value, bool)
        else _count(value, "explain (true, false, or how many events)", MOST_REASONS)
    )
