"""Long sessions as several, so that training learns from all of a session and attends to no more than its newest part.

A history of thousands of events is read in service by its newest ones. What came before these is as good an example of what
follows what, and is lost where sessions are cut when they are prepared (`sessions.max_length`).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from modeling.sessions import Sessions
from schemas.errors import InputError


def divide(sessions: Sessions, most: int | None) -> Sessions:
    """Sessions of more than `most` events -> each as pieces of at most so many, the newest piece full; None: as they are.

    A piece begins with the last event of the piece before it, so that each event but a session's first is predicted once. Of
    labels of a session, its newest piece has the value: that of the whole session.

    A session of events 0 to 6 with `most=3` becomes 0-2, 2-4 and 4-6; of 0 to 5, 0-1, 1-3 and 3-5.

    Raises:
        InputError: where past sessions are read: what is past of an earlier piece is not what is past of its session.
    """
    if most is None or not len(sessions) or int(sessions.lengths.max()) <= most:
        return sessions
    if sessions.past is not None:
        raise InputError(
            f"training.piece_events {most}: sessions are not divided where past ones are read before them. Leave it out, or "
            "set inputs.past_events to 0."
        )
    step = most - 1
    count_S = ((sessions.lengths - 2).clamp(min=0) // step + 1).long()
    session_P = torch.repeat_interleave(count_S)
    newer_P = (
        count_S.cumsum(0)[session_P] - 1 - torch.arange(len(session_P), device=session_P.device)
    )  # pieces after it
    pieces = sessions.select(session_P)
    end_P = pieces.starts + pieces.lengths - newer_P * step
    start_P = torch.maximum(pieces.starts, end_P - most)
    newest_P = newer_P == 0
    return replace(
        pieces,
        starts=start_P,
        lengths=end_P - start_P,
        following=None if pieces.following is None else torch.where(newest_P, pieces.following, end_P),
        labels={name: values.masked_fill(~newest_P, torch.nan) for name, values in pieces.labels.items()},
    )
