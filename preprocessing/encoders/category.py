"""Values to ids: 1 for null, 2 for values that were too rare so far, from 3 the others, in order of their admission.

A value is admitted on the day on which its count so far first reaches `min_count`; a day's new values are numbered by that
count, the most frequent first, ties by value. No id ever changes: what a day was encoded with stays true.

With k `unknown_buckets`, ids 2 to 1 + k are for values that were too rare so far, chosen by a hash, and the others begin at
2 + k, as with NVTabular's num_buckets (whose hash is another).

A column of lists becomes one of lists of ids. A list that holds nothing but nulls, one null, or is null itself is empty.
"""

from __future__ import annotations

from datetime import date
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from preprocessing.encoders import Encoder, Expressions, Fits, Kind, Takes
from preprocessing.groups import Groups
from preprocessing.hashing import stable_hash
from preprocessing.vocabulary import ADMITTED, admit, highest
from schemas.columns import COUNT, DAY, ID, NULL, UNKNOWN, VALUE
from schemas.errors import InputError

BUCKET = "bucket"


class Category(Encoder):
    """Ids from a vocabulary that only ever grows.

    With `min_count: 2` and the values a, b, b on day 1 and a, c on day 2, day 1 becomes 2, 3, 3 and day 2 becomes 4, 2: b
    was admitted on day 1, a on day 2, c is too rare so far.
    """

    kind: ClassVar[Kind] = "categorical"
    takes: ClassVar[Takes] = "anything"
    fits: ClassVar[Fits] = "by value"

    min_count: int = Field(1, ge=1, description="Rarer values become unknown.")
    max_size: int | None = Field(None, ge=4, description="At most so many ids, the reserved ones included.")
    unknown_buckets: int = Field(1, ge=1, description="How many ids unknown values are spread over by their hash.")
    vocabulary: str | None = Field(
        None, pattern=r"^\w+$", description="Share one vocabulary, of this name, with other features that name it."
    )
    start_from: str | None = Field(
        None, description="An NVTabular unique.<column>.parquet below the source whose ids are kept."
    )

    @model_validator(mode="after")
    def _limits(self) -> Category:
        if self.max_size and self.min_count > 1:
            raise ValueError("min_count and max_size exclude each other")
        if self.max_size and self.max_size <= self.first_id:
            raise ValueError(f"max_size {self.max_size} leaves no id besides the {self.first_id} reserved ones")
        return self

    @property
    def first_id(self) -> int:
        """The first id of an admitted value."""
        return UNKNOWN + self.unknown_buckets

    def check(self, column: str, columns: pl.Schema) -> None:
        """Buckets need values that can be hashed."""
        dtype = columns[column]
        dtype = dtype.inner if isinstance(dtype, pl.List) else dtype  # type: ignore[assignment]
        if self.unknown_buckets > 1 and not (dtype.is_integer() or dtype == pl.String):
            raise InputError(f"unknown_buckets needs integers or text to hash, but {column!r} holds {dtype}.")

    def statistics(self, value: pl.Expr) -> Expressions:
        """How often each value occurs."""
        return {COUNT: pl.len().cast(pl.Int64)}

    def partial_fit(self, rows: pl.LazyFrame, value: pl.Expr, day: date | None = None) -> pl.LazyFrame:
        """Values of one day are counted as such: in one thread, where groups cost twice as much in two."""
        if day is None:
            return super().partial_fit(rows, value)
        counted = rows.select(value.drop_nulls().alias(VALUE).value_counts(name=COUNT)).unnest(VALUE)
        return counted.select(pl.lit(day).alias(DAY), VALUE, pl.col(COUNT).cast(pl.Int64))

    def count_up(self, groups: Groups, values: pl.Series) -> dict[str, pl.Series]:
        """How often each value occurs."""
        return {COUNT: pl.Series(np.bincount(groups.of_rows, minlength=groups.size))}

    def merge(self, state: pl.DataFrame | None, statistics: pl.DataFrame) -> pl.DataFrame:
        """The vocabulary after these days: `value`, `count`, and `id` and `admitted` of those that have an id."""
        return admit(state, statistics, self.min_count, self.max_size, self.first_id)

    def lookup(self, before: pl.DataFrame | None, statistics: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
        """`value`, `id`, `admitted`, `bucket`: a day has the ids it admits itself, for training on it later."""
        if self.unknown_buckets == 1:
            return after.filter(pl.col(ID).is_not_null()).select(VALUE, ID, ADMITTED)
        bucket = stable_hash(after[VALUE]) % self.unknown_buckets + UNKNOWN
        return after.select(VALUE, ID, ADMITTED, bucket.cast(pl.Int32).alias(BUCKET))

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        """The id of a value admitted up to the row's day; that of unknown values for others, 1 for null."""
        unknown = state[BUCKET].fill_null(UNKNOWN) if BUCKET in state else pl.lit(UNKNOWN, dtype=pl.Int32)
        id_ = pl.when(state[ADMITTED] <= pl.col(DAY)).then(state[ID]).otherwise(unknown)
        return pl.when(value.is_null()).then(pl.lit(NULL, dtype=pl.Int32)).otherwise(id_)

    def cardinality(self, state: pl.DataFrame | None) -> int:
        """All values and the reserved ids."""
        return self.first_id if state is None else highest(state, self.first_id) + 1

    def inverse_transform(self, encoded: pl.Series, state: pl.DataFrame | None) -> pl.Series | None:
        """Ids, or lists of ids -> values; null for reserved ids and those the vocabulary does not have."""
        if state is None:
            return None
        admitted = state.drop_nulls(ID)
        many = isinstance(encoded.dtype, pl.List)
        id_ = pl.element() if many else pl.col(encoded.name)
        value = id_.replace_strict(admitted[ID], admitted[VALUE], default=None, return_dtype=admitted.schema[VALUE])
        return encoded.list.eval(value) if many else encoded.to_frame().select(value).to_series()
