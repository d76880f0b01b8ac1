"""Number of characters of a text."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from preprocessing.encoders import Encoder, Expressions, Takes


class TextLength(Encoder):
    """Characters (code points), spaces included."""

    takes: ClassVar[Takes] = "text"

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """Count."""
        return value.str.len_chars()
