"""The body of POST /track -> events. What is wrong with one of them is said of that one, and spoils no other.

{"event": "click", "recommendation_id": "Zk3vXq...", "item": "lamp-0012"}                 one event
{"events": [{"event": "impression", "recommendation_id": "Zk3vXq..."}, {...}]}           many
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from modeling.service.api.limits import Limits
from modeling.service.tracking.journal import Record
from schemas.errors import InputError, unknown

IMPRESSION, CLICK = KINDS = ("impression", "click")
KEYS = (
    "event", "recommendation_id", "item", "items", "position", "model", "source", "user_id", "session_id", "timestamp",
)  # fmt: skip
TEXTS = ("recommendation_id", "model", "source")
MOST_TEXT = 512  # characters of an id or a name
MOST_POSITION = 1_000_000
AHEAD = timedelta(minutes=5)  # that a clock may be wrong
SECOND = timedelta(seconds=1)


@dataclass
class Tracked:
    """The events of a request, a row an item; how many of those sent are taken, and what is wrong with the rest."""

    records: list[Record] = field(default_factory=list)
    accepted: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)


def read_events(
    body: bytes,
    limits: Limits,
    *,
    late: timedelta,
    name_of: Callable[[object], str | None] = lambda given: None if given is None else str(given),
    now: datetime | None = None,
) -> Tracked:
    """What is sent. Ids of users and sessions are written as `name_of` gives them; times are those of events, else `now`.

    Raises:
        InputError: for what is wrong with the request as a whole, and in a request of one event with that.
    """
    try:
        given = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The body is no JSON ({error}).") from None
    if not isinstance(given, dict):
        raise InputError(f'The body is an object such as {{"events": [...]}}, got {_short(given)}.')
    found, received = Tracked(), now or datetime.now(UTC)
    if "events" not in given:
        found.records, found.accepted = _rows(given, "", limits, received, late, name_of), 1
        return found
    if len(given) > 1:
        raise InputError(
            f"The request has events and {next(name for name in given if name != 'events')}: put it into an event."
        )
    events = given["events"]
    if not isinstance(events, list):
        raise InputError(f"events is a list of objects, got {_short(events)}.")
    if not 1 <= len(events) <= limits.tracked:
        raise InputError(f"events holds {len(events):,}; 1 to {limits.tracked:,} are allowed in a request.")
    for place, event in enumerate(events):
        try:
            found.records += _rows(event, f"events[{place}]", limits, received, late, name_of)
            found.accepted += 1
        except InputError as error:
            found.errors.append({"event": place, "error": str(error)})
    if not found.accepted:
        raise InputError(f"No event can be read. {found.errors[0]['error']}")
    return found


def _rows(
    event: Any,
    where: str,
    limits: Limits,
    received: datetime,
    late: timedelta,
    name_of: Callable[[object], str | None],
) -> list[Record]:
    """An event as rows, one an item."""
    at = f"{where}." if where else ""
    if not isinstance(event, dict):
        raise InputError(f'{where} is an object such as {{"event": "click", "item": "lamp-1"}}, got {_short(event)}.')
    for name in event:
        if name not in KEYS:
            raise unknown(f"key in {where or 'the request'}", name, KEYS)
    kind = event.get("event")
    if kind not in KINDS:
        raise InputError(f"{at}event is {' or '.join(KINDS)}, got {_short(kind)}.")
    moment = _moment(event.get("timestamp"), at, received, late)
    common: Record = {"event_type": kind} | {name: _text(event.get(name), f"{at}{name}") for name in TEXTS}
    common |= {name: name_of(_id(event.get(name), f"{at}{name}")) for name in ("user_id", "session_id")}
    common |= {"timestamp": _microseconds(moment), "received": _microseconds(received)}
    items, first = _items(event, at, limits), _position(event.get("position"), at)
    if items is None:
        if kind == CLICK or common["recommendation_id"] is None:
            raise InputError(
                f"{where or 'The request'} names no item. A click has `item`; an impression has `item`, `items` from the first "
                "shown to the last, or `recommendation_id` alone: all of that answer was shown."
            )
        return [common]
    numbered = "items" in event  # from the position that is given on, else none is known
    return [
        common | {"item_id": item, "position": None if first is None else first + place * numbered}
        for place, item in enumerate(items)
    ]


def _items(event: dict[str, Any], at: str, limits: Limits) -> list[str] | None:
    if "item" in event and "items" in event:
        raise InputError(f"{at}item and {at}items: give one of them.")
    if event.get("item") is not None:
        item = _id(event["item"], f"{at}item")
        assert item is not None
        return [item]
    if event.get("items") is None:
        return None
    items = event["items"]
    if not isinstance(items, list):
        raise InputError(f"{at}items is a list of item ids, got {_short(items)}.")
    if not 1 <= len(items) <= limits.items:
        raise InputError(f"{at}items holds {len(items):,}; 1 to {limits.items:,} are allowed in an event.")
    ids = [_id(item, f"{at}items[{place}]") for place, item in enumerate(items)]
    for place, item in enumerate(ids):
        if item is None:
            raise InputError(f"{at}items[{place}] is an item id, text or an integer, got null.")
    return [item for item in ids if item is not None]


def _id(value: Any, where: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(f"{where} is an id, text or an integer, got {_short(value)}.")
    return _limited(str(value), where)


def _text(value: Any, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where} is text, got {_short(value)}.")
    return None if not value else _limited(value, where)


def _limited(text: str, where: str) -> str:
    if len(text) > MOST_TEXT:
        raise InputError(f"{where} has {len(text):,} characters; {MOST_TEXT} are allowed.")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair that JSON may hold, and no file of text
        raise InputError(f"{where} is no text: it holds half of a surrogate pair.") from None
    return text


def _position(value: Any, at: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_POSITION:
        raise InputError(
            f"{at}position is an integer from 1, the first place, to {MOST_POSITION:,}, got {_short(value)}."
        )
    return value


def _moment(value: Any, at: str, received: datetime, late: timedelta) -> datetime:
    """When an event was: not after it came, but for a clock that is wrong, and not long before."""
    if value is None:
        return received
    try:
        moment = datetime.fromisoformat(value)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{at}timestamp is a time such as 2026-03-08T09:00:00Z, got {_short(value)}.") from None
    if moment > received + AHEAD:
        ahead = (moment - received) // SECOND
        raise InputError(f"{at}timestamp {value} is {ahead:,} s after it came; up to {AHEAD // SECOND} s are allowed.")
    if moment < received - late:
        hours = late / timedelta(hours=1)
        raise InputError(
            f"{at}timestamp {value} is {(received - moment) // SECOND:,} s before it came; up to {hours:g} hours are allowed "
            "(serving.tracking.late_hours)."
        )
    return moment


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON; leave the key out, or write null")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
