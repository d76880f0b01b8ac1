"""Sessions with their next item hidden, and the labels that training and a test ask about.

A label belongs to an event, or to a session as a whole and so to its last event. It is predicted from the events before.

S sessions, E events, N labels that are known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modeling.sessions import Sessions
from schemas.columns import FIRST_ID
from schemas.features import LabelColumn


@dataclass(frozen=True)
class Cases:
    """Sessions with their next item hidden: `history` to predict from, `target` of shape [S], both on one device."""

    history: Sessions
    target: Tensor

    def known(self) -> Cases:
        """Only the cases whose target is in the catalogue and whose history is not empty."""
        keep = (self.target >= FIRST_ID) & (self.history.lengths > 0)
        return self.select(keep)

    def select(self, index: Tensor) -> Cases:
        """Only the cases at `index` (positions or a boolean mask), in that order."""
        return Cases(self.history.select(index), self.target[index])

    def seen(self) -> Tensor:
        """Whether the history holds the target, bool of shape [S]."""
        session, event = self.history.event_index()
        same = self.history.items[event] == self.target[session]
        return torch.zeros_like(self.target, dtype=torch.bool).index_put_((session[same],), same[same])

    def to(self, device: torch.device | str) -> Cases:
        """The same cases, histories and targets, with their arrays on `device`."""
        return Cases(self.history.to(device), self.target.to(device))


def hide_last(sessions: Sessions) -> Cases:
    """The last item of each session becomes its target."""
    return Cases(sessions.drop_last(1), sessions.item_from_end(0))


def spread(size: int, count: int) -> Tensor:
    """`count` positions evenly spread over range(size)."""
    count = min(count, size)
    return torch.arange(count) * size // max(count, 1)


def trained_items(train: Sessions, num_items: int) -> Tensor:
    """Which items of the catalogue a model can learn something of, bool of shape [num_items]: those with an event in a
    training session of two events or more.
    """
    return train.select(train.lengths >= 2).item_counts(num_items) > 0


def training_labels(train: Sessions, column: LabelColumn) -> Tensor:
    """The known labels that training may ask about, [N]: of sessions, or of all events but each session's first."""
    if column.per == "session":
        value_N = train.labels[column.name]
    else:
        _, event_N = replace(train, starts=train.starts + 1, lengths=(train.lengths - 1).clamp(min=0)).event_index()
        value_N = train.event_labels[column.name][event_N]
    return value_N[~value_N.isnan()]


def label_cases(cases: Cases, column: LabelColumn, *, back: bool) -> tuple[Sessions, Tensor]:
    """N histories and the label, always known, of what comes after each.

    It is the label of the event hidden, or of its session. With `back`, a session whose hidden event has no label of its own
    (how long people stayed is not known of the last) is cut before the last event that has one.
    """
    history = cases.history
    if column.per == "session":
        lengths_S, value_S = history.lengths, history.labels[column.name]
    else:
        value_E = history.event_labels[column.name]
        session, event = replace(history, lengths=history.lengths + 1).event_index()
        place = event - history.starts[session]
        asked = ~value_E[event].isnan() & (back | (place == history.lengths[session]))
        lengths_S = torch.zeros_like(history.lengths).scatter_reduce(0, session, place * asked, "amax")
        value_S = value_E[history.starts + lengths_S]
    keep_S = (lengths_S > 0) & ~value_S.isnan()
    shorter = replace(history, lengths=lengths_S, following=history.starts + lengths_S)
    return shorter.select(keep_S), value_S[keep_S]
