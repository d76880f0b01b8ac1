"""What the OpenAPI page says of bodies: their schema, and examples that can be sent as they are."""

from __future__ import annotations

from typing import Any

ABOUT = (
    "Recommendations of the model in service. Every answer names the model (X-Overnight-Model) and its age in seconds "
    '(X-Overnight-Model-Age). What is wrong with a request is said in one line: {"error": ...}.'
)
_SESSION = {
    "session_id": {"description": "Comes back with the answer; any value."},
    "user_id": {
        "type": ["string", "integer"],
        "description": "Whose past is read, by a model that reads past sessions.",
    },
    "items": {
        "type": "array",
        "items": {"type": ["string", "integer"]},
        "description": "Bare item ids, oldest first. Features of the moment are read as unknown; `not_given` names them.",
    },
    "events": {
        "type": "array",
        "items": {"type": "object"},
        "description": "Events as they were sent to the log, with its columns: features are the event's own.",
    },
    "asked_at": {"type": "string", "format": "date-time", "description": "For a model that reads when it is asked."},
}
_EVENT = {"item_id": "lamp-0012", "timestamp": "2026-03-08T09:00:00Z", "event_type": "view", "price": 12.5}
_EXAMPLES = {
    "events": {"summary": "Events as they are in the log", "value": {"events": [_EVENT], "k": 5}},
    "items": {"summary": "Bare item ids", "value": {"items": ["lamp-0012", "lamp-0007"], "k": 5}},
    "many": {
        "summary": "Many sessions",
        "value": {"sessions": [{"session_id": "a", "items": ["lamp-0012"]}, {"session_id": "b", "events": [_EVENT]}]},
    },
    "new": {"summary": "A session without an event yet", "value": {"items": [], "k": 5}},
}


def _body(further: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    session = {"type": "object", "properties": _SESSION, "additionalProperties": False}
    properties = {**_SESSION, "sessions": {"type": "array", "items": session}, **further}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}
    }


RECOMMEND = _body(
    {
        "k": {"type": "integer", "minimum": 1, "default": 10, "description": "How many items."},
        "hide_seen": {
            "type": ["boolean", "null"],
            "description": "Never what the session holds; left out, as the model was last evaluated.",
        },
        "explain": {
            "type": ["boolean", "integer"],
            "default": False,
            "description": "The events that each item leans on, and how much its score falls without them.",
        },
    },
    _EXAMPLES,
)
_TRACKED = {
    "event": {"type": "string", "enum": ["impression", "click"]},
    "recommendation_id": {"type": "string", "description": "As the answer has it that was shown."},
    "item": {"type": ["string", "integer"]},
    "items": {
        "type": "array",
        "items": {"type": ["string", "integer"]},
        "description": "In place of `item`: shown in this order. An impression with neither is of the whole answer.",
    },
    "position": {"type": "integer", "minimum": 1, "description": "Place on the page; else that of the answer."},
    "model": {"type": "string", "description": "Of a list that did not come from here: what made it."},
    "source": {"type": "string", "description": "Likewise."},
    "user_id": {"type": ["string", "integer"]},
    "session_id": {"type": ["string", "integer"]},
    "timestamp": {"type": "string", "format": "date-time", "description": "Left out: when it comes."},
}
TRACK = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        **_TRACKED,
                        "events": {"type": "array", "items": {"type": "object", "properties": _TRACKED}},
                    },
                },
                "examples": {
                    "shown": {
                        "summary": "A whole answer was shown, and one of its items clicked",
                        "value": {
                            "events": [
                                {"event": "impression", "recommendation_id": "Zk3vXq0aB1cD2eF3"},
                                {"event": "click", "recommendation_id": "Zk3vXq0aB1cD2eF3", "item": "lamp-0012"},
                            ]
                        },
                    },
                    "own": {
                        "summary": "A list that did not come from here",
                        "value": {
                            "event": "click",
                            "item": "lamp-0012",
                            "position": 2,
                            "model": "editors",
                            "user_id": "ann",
                        },
                    },
                },
            }
        },
    }
}
PREDICT = _body({}, {name: _EXAMPLES[name] for name in ("events", "many")})
