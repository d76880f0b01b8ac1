"""Reading a model: which items it takes for alike, and which events of a history a recommendation leans on.

N items asked about or histories, E width of item vectors or events, K items of a list, L events of a history, M events named,
P pairs of a history and one of its events.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.scoring import ModelScorer, VectorScorer
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID
from schemas.errors import InputError

NUM_NEAR = 3  # names suggested for one that is not there
MOST_EVENTS = 2**16  # read at a time where each event of a history is left out once
MOST_NAMES = 100_000  # compared with it: comparing takes microseconds a name


@dataclass(frozen=True)
class Reason:
    """A recommended item, its score, and the events it leans on: (item, how much the score falls without it), most first.

    A history of one event has nothing to be compared with: its event is named with None.
    """

    item: Any
    score: float
    events: tuple[tuple[Any, float | None], ...]


class CosineScorer(VectorScorer):
    """The last item of each history against all item vectors, by cosine: an item's nearest are what ranking finds best."""

    def __init__(self, scorer: ModelScorer) -> None:
        super().__init__(F.normalize(scorer.items_VE, dim=1), None, scorer.rankable_V)

    def queries(self, histories: Sessions) -> Tensor:
        """The normalized vectors of last items, [N, E]."""
        return self.items_VE[histories.item_from_end(0) - FIRST_ID]


def require_items(given: Sequence[Any], unknown: Sequence[Any], names: Sequence[Any]) -> None:
    """Raise InputError for items that are not in the catalogue, with those whose names are near."""
    if not unknown:
        return
    known = [str(name) for name in names[:MOST_NAMES]]
    near = difflib.get_close_matches(str(unknown[0]), known, n=NUM_NEAR)
    hint = f" Near: {', '.join(near)}." if near else ""
    raise InputError(
        f"Item {unknown[0]!r} is not in this model's catalogue of {len(names):,} items ({len(unknown)} of {len(given)} "
        f"asked for are not).{hint}"
    )


def without_each_event(
    histories: Sessions, since: str | None, newest: int | None = None
) -> tuple[Sessions, Tensor, Tensor]:
    """Each history of two events or more once for each of its events, or of its `newest` ones, without it; and (history, event)
    of each of these.

    The feature `since`, seconds since the previous event, grows by those of the event left out.
    """
    history_P, event_P = histories.event_index()
    length_P = histories.lengths[history_P]
    many_P = length_P > 1
    if newest is not None:
        many_P &= event_P >= histories.starts[history_P] + length_P - newest
    history_P, event_P = history_P[many_P], event_P[many_P]
    copies = histories.select(history_P)
    copy, event = copies.event_index()
    shorter = copies.keep(event != event_P[copy], since)
    if since is not None:  # nothing comes before the first event, whichever it is now
        shorter.events[since][shorter.starts] = histories.events[since][copies.starts]
    return shorter, history_P, event_P


@torch.no_grad()
def falls(
    scorer: ModelScorer, histories: Sessions, ids_NK: Tensor, since: str | None, newest: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores [N, K] of the items of each history; for each event left out, all or the `newest` ones, how much they
    fall [P, K], its history, the event.

    Items of id 0, where a list has ended, have numbers that mean nothing.
    """
    column_NK = (ids_NK - FIRST_ID).clamp(min=0)
    score_NK = scorer.scores(scorer.queries(histories), column_NK)
    shorter, history_P, event_P = without_each_event(histories, since, newest)
    parts = [score_NK.new_empty(0, ids_NK.shape[1])]
    for part in torch.arange(len(shorter), device=history_P.device).split(scorer.chunk):
        history = history_P[part]
        parts.append(score_NK[history] - scorer.scores(scorer.queries(shorter.select(part)), column_NK[history]))
    return score_NK, torch.cat(parts), history_P, event_P


def parts_of(length_N: Tensor) -> list[Tensor]:
    """The positions of histories in parts: leaving out each event of one reads about MOST_EVENTS events, or one history."""
    read_N = (length_N.cpu() ** 2).cumsum(0) - 1
    _, sizes = (read_N.clamp(min=0) // MOST_EVENTS).unique_consecutive(return_counts=True)
    return list(torch.arange(len(length_N), device=length_N.device).split(sizes.tolist())) if len(length_N) else []


def reasons(
    histories: Sessions,
    raw_NK: list[list[Any]],
    raw_E: list[Any],
    found: tuple[Tensor, Tensor, Tensor, Tensor],
    most: int,
) -> list[list[Reason]]:
    """What `falls` found, in raw ids: of each history its recommendations with the `most` events each leans on.

    `raw_E` are the items of all events of the histories, in the order of `event_index`.
    """
    score_NK, fall_PK, history_P, event_P = (values.cpu() for values in found)
    length_N = histories.lengths.cpu()
    first_N = length_N.cumsum(0) - length_N
    place_P = event_P - histories.starts.cpu()[history_P]
    fall_NLK = score_NK.new_full((len(length_N), int(length_N.max()), score_NK.shape[1]), -torch.inf)
    fall_NLK[history_P, place_P] = fall_PK
    fall_NLK, order_NLK = fall_NLK.sort(dim=1, descending=True, stable=True)
    fall_NKM, event_NKM = (
        values[:, :most].transpose(1, 2) for values in (fall_NLK, order_NLK + first_N[:, None, None])
    )
    numbers = (values.tolist() for values in (score_NK, fall_NKM, event_NKM, length_N))
    answers = []
    for items, scores, falls_KM, events_KM, length in zip(raw_NK, *numbers, strict=True):
        answer = []
        for item, score, fall_M, event_M in zip(items, scores, falls_KM, events_KM, strict=False):
            named = [raw_E[event] for event in event_M[:length]]
            events = zip(named, fall_M if length > 1 else [None], strict=False)
            answer.append(Reason(item, score, tuple(events)))
        answers.append(answer)
    return answers
