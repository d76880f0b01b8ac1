"""The labels of sessions: which there are, which of them training learns from, what a test asks.

A label belongs to an event, or to a session as a whole and so to its last event. It is foretold from the events before.

S sessions, E events, N labels that are known.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from modeling.data import Cases, Sessions
from schemas.errors import unknown
from schemas.features import FeatureSchema, LabelColumn


def find_label(schema: FeatureSchema, name: str) -> LabelColumn:
    """The label of that name.

    Raises:
        InputError: when the sessions have none of that name, with those they have.
    """
    for column in schema.labels:
        if column.name == name:
            return column
    raise unknown("label", name, [column.name for column in schema.labels])


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
    return replace(history, lengths=lengths_S).select(keep_S), value_S[keep_S]
