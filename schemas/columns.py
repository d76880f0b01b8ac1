"""Every column name, once.

Event columns are what a source is mapped to; session columns are what a session file holds beside its features.
"""

import re

USER_ID = "user_id"
SESSION_ID = "session_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"
POSITION = "position"  # integer order of a user's events, for sources without times
EVENT_TYPE = "event_type"
VALID_FROM = "valid_from"  # in item tables that change: since when a row is true

START = "start"
END = "end"
LENGTH = "length"
DAY = "day"
UNDATED = "undated"  # the day of sessions without times

VALUE = "value"  # the raw value in a vocabulary
ID = "id"  # its number
COUNT = "count"  # how often it was seen in the rows the vocabulary was fit on
RULE = "rule"  # why a row is in quarantine

# What preparation itself calls columns of the tables that events are in. No column of a source may have such a name: it
# would be replaced, and a model would read, say, when its session ends.
RESERVED = {
    START: "when a session starts",
    END: "when a session ends",
    LENGTH: "how many events a session has",
    DAY: "the day in which a session closes",
    "session_index": "the number of a session",
    RULE: "why a row is in quarantine",
    "bucket": "the part of the users that are prepared together",
}

# No feature may be named like the other columns of its tables, or like the parts of a training batch.
TAKEN = {
    USER_ID,
    SESSION_ID,
    TIMESTAMP,
    START,
    END,
    LENGTH,
    DAY,
    VALUE,
    ID,
    COUNT,
    "last_seen",
    "session_index",
    "segments",
    "positions",
    "from_end",
    "masked",
    "order",
    "targets",
    "asks_last",
}

PADDING, NULL, UNKNOWN, FIRST_ID = 0, 1, 2, 3  # NVTabular's numbering


def refuse_reserved(name: str, where: str) -> None:
    """Raise ValueError for a column name of a source or a step that preparation uses itself, or that is no name.

    `where` says how to mend it, such as "map it under another name".
    """
    if name in RESERVED:
        raise ValueError(f"column {name!r} is Overnight's own ({RESERVED[name]}); {where}, such as file_{name}")
    if not re.fullmatch(r"[^\W\d]\w*", name):
        raise ValueError(f"column {name!r} must be letters, digits and underscores; {where}")
