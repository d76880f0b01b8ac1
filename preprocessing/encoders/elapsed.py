"""Seconds since the previous kept event of the session: how long a visitor looked at what came before."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.encoders import Encoder, Expressions, Takes
from preprocessing.sessions import SESSION_INDEX, changed


class Elapsed(Encoder):
    """Seconds, to the microsecond; 0 for a session's first event."""

    takes: ClassVar[Takes] = "times"

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """Rows are in order of session and time."""
        seconds = (value - value.shift(1)).dt.total_microseconds() / 1e6
        return pl.when(changed(SESSION_INDEX)).then(0.0).otherwise(seconds)
