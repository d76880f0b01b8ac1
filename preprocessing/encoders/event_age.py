"""Hours since the session's first event: where in the visit, or in the history, an event lies."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.encoders import Encoder, Takes
from preprocessing.sessions import SESSION_INDEX, changed


class EventAge(Encoder):
    """Hours between the first kept event of the session and this one, to the second; 0 for the first."""

    takes: ClassVar[Takes] = "times"

    def add_columns(self, events: pl.LazyFrame, value: pl.Expr, name: str) -> tuple[pl.LazyFrame, pl.Expr]:
        """Look every session's start up."""
        start = f"start for {name}"
        starts = events.filter(changed(SESSION_INDEX)).select(SESSION_INDEX, value.alias(start))
        events = events.join(starts, on=SESSION_INDEX, how="left", maintain_order="left")
        return events, (value - pl.col(start)).dt.total_seconds() / 3600
