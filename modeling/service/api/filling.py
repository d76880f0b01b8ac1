"""Lists that are short, or of sessions that no model can read, are filled with what is popular."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import torch

from modeling.service.api.asking import Asked
from modeling.service.api.in_service import Loaded
from modeling.service.popularity import Moment
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID, TIMESTAMP


def taken_of(ids_NK: torch.Tensor, read_N: torch.Tensor) -> dict[int, set[int]]:
    """The columns of the list of each session that has one."""
    rows = (ids_NK - FIRST_ID).tolist()
    return {place: set(row) for place, row in zip(read_N.nonzero().squeeze(1).tolist(), rows, strict=True)}


def fill(
    loaded: Loaded,
    k: int,
    hide_seen: bool,
    some: list[Asked],
    sessions: Sessions,
    answered: list[dict[str, Any]],
    taken: dict[int, set[int]],
    lengths: torch.Tensor,
) -> None:
    """Behind lists that are short, and where there is none, what is popular."""
    short = (lengths < k).nonzero().squeeze(1).tolist()
    if not short or loaded.popularity is None:
        return
    ruled, allowed_V = loaded.recommender.ruled, loaded.recommender.rankable_V.cpu().numpy()
    for place in short:
        mine = taken.get(place, set())
        without = mine | (_columns_of(sessions, place) if hide_seen else set())
        if ruled is not None:
            without |= ruled.bought_in(sessions.select(torch.tensor([place])))
        may_follow = ruled.may_follow(mine) if ruled is not None else _any
        moment = Moment(_category(loaded, sessions, place), _when(some[place]))
        found = loaded.popularity.fill(moment, k - int(lengths[place]), without, allowed_V, may_follow)
        names = loaded.recommender.raw_items(torch.tensor([column + FIRST_ID for column, _ in found], dtype=torch.long))
        answered[place]["items"] += [
            {"item": name, "score": None, "source": source} for name, (_, source) in zip(names, found, strict=True)
        ]


def _any(column: int) -> bool:
    return True


def _columns_of(sessions: Sessions, place: int) -> set[int]:
    first, length = int(sessions.starts[place]), int(sessions.lengths[place])
    return {item - FIRST_ID for item in sessions.items[first : first + length].tolist()}


def _category(loaded: Loaded, sessions: Sessions, place: int) -> int | None:
    """The category of the newest event that has one."""
    assert loaded.popularity is not None
    column = loaded.popularity.column
    if column is None or column.name not in sessions.events:
        return None
    first, length = int(sessions.starts[place]), int(sessions.lengths[place])
    ids = [number for number in sessions.events[column.name][first : first + length].tolist() if number >= FIRST_ID]
    return int(ids[-1]) if ids else None


def _when(question: Asked) -> datetime | None:
    """When a session is asked for, else when its last event was; None where neither is said in a form that is read here."""
    if question.asked_at is not None:
        return question.asked_at
    times = [event[TIMESTAMP] for event in question.events if isinstance(event.get(TIMESTAMP), str)]
    try:
        return datetime.fromisoformat(max(times)) if times else None
    except ValueError:
        return None
