"""Numbers to ids by quantiles of the days before: 3 + the number of boundaries below x, 1 for null.

The boundaries are the numbers of rank n/q, 2n/q, ..., each to within 4.3 % (see `_histogram`), and exact where few distinct
numbers lie around them. They follow the days: an id says how high a number is among those so far, not how high it is.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from preprocessing.encoders import Expressions, Kind, finite
from preprocessing.encoders._histogram import HIGH, UP_TO, Histogram, at_rank, next_day
from schemas.columns import DAY, FIRST_ID, NULL


class Quantile(Histogram):
    """About as many events in each of q ids."""

    kind: ClassVar[Kind] = "categorical"

    q: int = Field(10, ge=2, le=1_000, description="How many ids.")

    def lookup(self, before: pl.DataFrame | None, statistics: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
        """`day`, `boundary 1`, ..: the quantiles of the days before each day."""
        total = pl.col(UP_TO).max()
        ranks = {f"boundary {place}": -(-place * total // self.q) for place in range(1, self.q)}  # rounded up
        boundaries = {name: at_rank(HIGH, rank) for name, rank in ranks.items()}
        return self.histograms(before, statistics).group_by(DAY, maintain_order=True).agg(**boundaries)

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """Count the boundaries that are passed."""
        number = finite(value)
        passed = pl.sum_horizontal((number > boundary).fill_null(False).cast(pl.Int32) for boundary in state.values())
        return pl.when(number.is_null()).then(pl.lit(NULL, dtype=pl.Int32)).otherwise(passed + FIRST_ID)

    def fitted_numbers(self, state: pl.DataFrame | None) -> dict[str, float | tuple[float, ...]]:
        """The boundaries; none before any number was seen."""
        if state is None:
            return {"boundaries": ()}
        row = self.lookup(state, next_day(state), state).drop(DAY).row(0)
        return {"boundaries": tuple(boundary for boundary in row if boundary is not None)}

    def cardinality(self, state: pl.DataFrame | None) -> int:
        """q and the three reserved ids."""
        return FIRST_ID + self.q
