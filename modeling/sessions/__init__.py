"""Sessions as flat arrays: `arrays` what they are, `past` the earlier events of their users, `reading` how they are read."""

from modeling.sessions.arrays import DAY_MICROSECONDS, Sessions
from modeling.sessions.past import ASKED, GAP, IS_PAST, Past
from modeling.sessions.reading import from_table, read_sessions, values_of

__all__ = [
    "ASKED",
    "DAY_MICROSECONDS",
    "GAP",
    "IS_PAST",
    "Past",
    "Sessions",
    "from_table",
    "read_sessions",
    "values_of",
]
