"""What is recent: the popularity of items in which newer events count more, and how fast that fades in the data at hand.

S sessions, E events, V items of the catalogue.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modeling.sessions import DAY_MICROSECONDS, Sessions
from schemas.columns import FIRST_ID

HOUR_MICROSECONDS = DAY_MICROSECONDS // 24
HALF_LIVES = (1.0, 2.0, 4.0, 8.0, 24.0, 72.0, 168.0, 720.0)  # hours that are tried
USUAL = 24.0  # hours, where there is only one day to look at


def recent_counts(sessions: Sessions, half_life_hours: float, num_items: int) -> Tensor:
    """Events of each item, each halved by every so many hours from the end of its session to the newest end, float32 [V].

    Half-life 1 hour, an event of the newest session and one of a session that ended two hours before: 1 and 0.25.
    """
    session_E, event_E = sessions.event_index()
    column_E = sessions.items[event_E].long() - FIRST_ID
    is_item = (column_E >= 0) & (column_E < num_items)
    hours_S = (
        (sessions.end.max() - sessions.end).double() / HOUR_MICROSECONDS if len(sessions) else sessions.end.double()
    )
    weight_E = 0.5 ** (hours_S[session_E[is_item]] / half_life_hours)
    return torch.bincount(column_E[is_item], weight_E, minlength=num_items).float()


def choose_half_life(sessions: Sessions, num_items: int) -> float:
    """Of `HALF_LIVES`, the hours by which what was before the newest 24 hours makes these likeliest.

    The likelihood of an event is the share of its item in the counts of before, one added to each item's. `USUAL` where nothing
    is before, as where sessions have no times.
    """
    newest_S = sessions.end > (sessions.end.max() if len(sessions) else 0) - DAY_MICROSECONDS
    before, newest = sessions.select(~newest_S), sessions.select(newest_S)
    if not len(before):
        return USUAL
    asked_V = newest.item_counts(num_items).double()
    best, best_likelihood = USUAL, -math.inf
    for hours in HALF_LIVES:
        count_V = recent_counts(before, hours, num_items).double() + 1
        likelihood = float((asked_V * (count_V / count_V.sum()).log()).sum())
        if likelihood > best_likelihood:
            best, best_likelihood = hours, likelihood
    return best


def newest_days(sessions: Sessions, days: int | None) -> Sessions:
    """The sessions that ended in the newest `days` times 24 hours, up to the newest one's end; all where `days` is None."""
    if days is None or not len(sessions):
        return sessions
    return sessions.select(sessions.end > sessions.end.max() - days * DAY_MICROSECONDS)
