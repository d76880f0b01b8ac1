"""Lists that are short, or of sessions that no model can read, are filled with what is popular."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import torch

from modeling.service.api.asking import Asked
from modeling.service.api.in_service import Loaded
from modeling.service.popularity import Filling
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
    filling = Filling(loaded.recommender, loaded.popularity, hide_seen)
    for place in short:
        found = filling.fill(sessions, place, k - int(lengths[place]), taken.get(place, set()), _when(some[place]))
        names = loaded.recommender.raw_items(torch.tensor([column + FIRST_ID for column, _ in found], dtype=torch.long))
        answered[place]["items"] += [
            {"item": name, "score": None, "source": source} for name, (_, source) in zip(names, found, strict=True)
        ]


def _when(question: Asked) -> datetime | None:
    """When a session is asked for, else when its last event was; None where neither is said in a form that is read here."""
    if question.asked_at is not None:
        return question.asked_at
    times = [event[TIMESTAMP] for event in question.events if isinstance(event.get(TIMESTAMP), str)]
    try:
        return datetime.fromisoformat(max(times)) if times else None
    except ValueError:
        return None
