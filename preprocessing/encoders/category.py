"""Values to ids by frequency: 1 for null, 2 for values not seen often enough in training, from 3 the others."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from preprocessing.encoders import Encoder
from preprocessing.vocabulary import count_values, number_values
from schemas.columns import FIRST_ID, ID, NULL, UNKNOWN, VALUE


class Category(Encoder):
    """Ids from a vocabulary of the values seen at least `min_count` times."""

    kind: ClassVar[Literal["categorical", "continuous"]] = "categorical"
    takes: ClassVar[Literal["anything", "numbers", "times"]] = "anything"
    table_folder: ClassVar[str] = "vocabularies"

    min_count: int = Field(1, ge=1, description="Rarer values become 2, unknown.")

    def fit(self, rows: pl.LazyFrame, value: pl.Expr) -> pl.LazyFrame:
        """The vocabulary."""
        return number_values(count_values(rows, value), self.min_count)

    def join(self, events: pl.LazyFrame, value: pl.Expr, table: pl.DataFrame | None, name: str) -> pl.LazyFrame:
        """Look every value up."""
        assert table is not None
        ids = table.lazy().select(VALUE, pl.col(ID).alias(_looked_up(name)))
        return events.join(ids, left_on=value, right_on=VALUE, how="left", maintain_order="left")

    def encode(self, value: pl.Expr, table: pl.DataFrame | None, name: str) -> pl.Expr:
        """The id found, or 1 or 2."""
        found = pl.col(_looked_up(name)).fill_null(UNKNOWN)
        return pl.when(value.is_null()).then(pl.lit(NULL, dtype=pl.Int32)).otherwise(found)

    def cardinality(self, table: pl.DataFrame | None) -> int:
        """All values and the three reserved ids."""
        assert table is not None
        return FIRST_ID + table.height


def _looked_up(name: str) -> str:
    return f"id of {name}"
