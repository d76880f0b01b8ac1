"""Lists that are short, or of sessions that no model can read, are filled with what is popular."""

from __future__ import annotations

from typing import Any

import polars as pl
import torch

from modeling.service.api.asking import Asked
from modeling.service.api.in_service import Loaded
from modeling.service.popularity import Filling
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID


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
    ends: pl.Series | None,
) -> None:
    """Behind lists that are short, and where there is none, what is popular when a session is asked for, else at its end."""
    short = (lengths < k).nonzero().squeeze(1).tolist()
    if not short or loaded.popularity is None:
        return
    filling = Filling(loaded.recommender, loaded.popularity, hide_seen)
    for place in short:
        when = some[place].asked_at or (ends[place] if ends is not None else None)
        found = filling.fill(sessions, place, k - int(lengths[place]), taken.get(place, set()), when)
        names = loaded.recommender.raw_items(torch.tensor([column + FIRST_ID for column, _ in found], dtype=torch.long))
        answered[place]["items"] += [
            {"item": name, "score": None, "source": source} for name, (_, source) in zip(names, found, strict=True)
        ]
