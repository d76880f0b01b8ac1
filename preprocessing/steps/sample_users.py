"""Keep a share of the users, for a quick look: the same ones every night."""

from __future__ import annotations

import polars as pl
from pydantic import Field

from preprocessing.hashing import stable_hash
from preprocessing.steps import Step
from schemas.columns import USER_ID

IN_SAMPLE = "in sample"


class SampleUsers(Step):
    """Keep the users whose hash is in the lowest `share`; a larger share keeps the same ones and more."""

    share: float = Field(gt=0, lt=1, description="Share of users that are kept.")
    seed: int = Field(0, ge=0, description="Another seed keeps others.")

    def read(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Add whether the user is kept: engines hash differently, so this is done before any of them."""
        kept = pl.col(USER_ID).map_batches(self._keeps, return_dtype=pl.Boolean, is_elementwise=True)
        return events.with_columns(kept.alias(IN_SAMPLE))

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Keep those."""
        return events.filter(pl.col(IN_SAMPLE)).drop(IN_SAMPLE)

    def _keeps(self, users: pl.Series) -> pl.Series:
        return stable_hash(users, self.seed) / 2**64 < self.share
