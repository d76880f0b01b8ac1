"""Numbers below `min` become `min`, those above `max` become `max`."""

from __future__ import annotations

import polars as pl
from pydantic import Field, model_validator

from preprocessing.encoders import Encoder, Expressions


class Clip(Encoder):
    """max(min, min(max, x)): a handful of absurd values shall not set the scale."""

    min: float | None = Field(None, description="Smallest number left.")
    max: float | None = Field(None, description="Largest number left.")

    @model_validator(mode="after")
    def _in_order(self) -> Clip:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """Clip; null stays null."""
        return value.cast(pl.Float64).clip(self.min, self.max)
