"""Hours since the session's first event: where in the visit, or in the history, an event lies."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl

from preprocessing.encoders import Encoder
from preprocessing.sessions import SESSION_INDEX, changed


class EventAge(Encoder):
    """Hours between the first kept event of the session and this one; 0 for the first."""

    takes: ClassVar[Literal["anything", "numbers", "times"]] = "times"

    def join(self, events: pl.LazyFrame, value: pl.Expr, table: pl.DataFrame | None, name: str) -> pl.LazyFrame:
        """Look every session's start up."""
        starts = events.filter(changed(SESSION_INDEX)).select(SESSION_INDEX, value.alias(_start(name)))
        return events.join(starts, on=SESSION_INDEX, how="left", maintain_order="left")

    def encode(self, value: pl.Expr, table: pl.DataFrame | None, name: str) -> pl.Expr:
        """Hours, to the second."""
        return (value - pl.col(_start(name))).dt.total_seconds() / 3600


def _start(name: str) -> str:
    return f"start for {name}"
