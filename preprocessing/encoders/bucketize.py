"""Numbers to ids by given boundaries: 3 + the number of boundaries <= x, as NVTabular's Bucketize + 3; 1 for null."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import polars as pl
from pydantic import Field, field_validator

from preprocessing.encoders import Encoder, Expressions, Kind, finite
from schemas.columns import FIRST_ID, NULL


class Bucketize(Encoder):
    """Ids of intervals that mean the same in every run. A boundary belongs to the interval above it."""

    kind: ClassVar[Kind] = "categorical"

    boundaries: tuple[float, ...] = Field(
        min_length=1, description="Where one interval ends and the next begins, ascending."
    )

    @field_validator("boundaries")
    @classmethod
    def _ascending(cls, boundaries: tuple[float, ...]) -> tuple[float, ...]:
        if not all(low < high for low, high in pairwise(boundaries)):
            raise ValueError("boundaries must ascend, such as [0, 10, 100]")
        return boundaries

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """Count the boundaries that are passed."""
        number = finite(value)
        passed = pl.sum_horizontal((number >= boundary).cast(pl.Int32) for boundary in self.boundaries)
        return pl.when(number.is_null()).then(pl.lit(NULL, dtype=pl.Int32)).otherwise(passed + FIRST_ID)

    def cardinality(self, state: pl.DataFrame | None) -> int:
        """One interval more than boundaries, and the three reserved ids."""
        return FIRST_ID + len(self.boundaries) + 1
