"""Numbers to ids by quantiles of the days before: 3 + the number of boundaries below x, 1 for null.

The boundaries are the numbers of rank n/q, 2n/q, ..., each to within 4.3 % (see `_histogram`), and exact where few distinct
numbers lie around them. They follow the days: an id says how high a number is among those known, not how high it is.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.encoders import Expressions, Kind, finite
from preprocessing.encoders._histogram import HIGH, Histogram, at_rank
from schemas.columns import DAY, FIRST_ID, NULL


class Quantile(Histogram):
    """About as many events in each of q ids."""

    kind: ClassVar[Kind] = "categorical"

    q: int = Field(10, ge=2, le=1_000, description="How many ids.")

    def table(self, known: pl.DataFrame | None, learnt: pl.DataFrame, merged: pl.DataFrame) -> pl.DataFrame:
        """Each day's boundaries."""
        total = pl.col("up_to").max()
        ranks = {f"boundary {place}": -(-place * total // self.q) for place in range(1, self.q)}  # rounded up
        boundaries = {name: at_rank(HIGH, rank) for name, rank in ranks.items()}
        return self.before(known, learnt).group_by(DAY, maintain_order=True).agg(**boundaries)

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """Count the boundaries that are passed."""
        number = finite(value)
        passed = pl.sum_horizontal((number > boundary).fill_null(False).cast(pl.Int32) for boundary in learnt.values())
        return pl.when(number.is_null()).then(pl.lit(NULL, dtype=pl.Int32)).otherwise(passed + FIRST_ID)

    def cardinality(self, merged: pl.DataFrame | None) -> int:
        """q and the three reserved ids."""
        return FIRST_ID + self.q
