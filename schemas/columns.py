"""Every column name, once.

Event columns are what a source is mapped to; session columns are what a session file holds beside its features.
"""

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
