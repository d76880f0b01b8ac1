"""Values to ids: 1 for null, 2 for values not seen often enough so far, from 3 the others, in order of their admission.

A value is admitted on the day on which its count so far first reaches `min_count`; a day's newcomers are numbered by that
count, the most frequent first, ties by value. No id ever changes: what a day was encoded with stays true.

With k `unknown_buckets`, ids 2 to 1 + k are for values not seen often enough, told apart by a hash, and the others begin at
2 + k, as with NVTabular's num_buckets (whose hash is another).

A column of lists becomes one of lists of ids. A list that holds nothing but nulls, one null, or is null itself is empty.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field, model_validator

from preprocessing.encoders import Encoder, Expressions, Kind, Learns, Takes
from preprocessing.hashing import stable_hash
from preprocessing.vocabulary import ADMITTED, admit, highest
from schemas.columns import COUNT, DAY, ID, NULL, UNKNOWN, VALUE
from schemas.errors import InputError

BUCKET = "bucket"


class Category(Encoder):
    """Ids from a vocabulary that only ever grows."""

    kind: ClassVar[Kind] = "categorical"
    takes: ClassVar[Takes] = "anything"
    learns: ClassVar[Learns] = "by value"

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
            raise ValueError(f"max_size {self.max_size} leaves no id beside the {self.first_id} reserved ones")
        return self

    @property
    def first_id(self) -> int:
        """The first id of a value that is known."""
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

    def merge(self, known: pl.DataFrame | None, learnt: pl.DataFrame) -> pl.DataFrame:
        """The vocabulary after these days: `value`, `count`, and `id` and `admitted` of those that have an id."""
        return admit(known, learnt, self.min_count, self.max_size, self.first_id)

    def table(self, known: pl.DataFrame | None, learnt: pl.DataFrame, merged: pl.DataFrame) -> pl.DataFrame:
        """Ids and since when each holds: a day knows what it admits itself, for training on it later."""
        if self.unknown_buckets == 1:
            return merged.filter(pl.col(ID).is_not_null()).select(VALUE, ID, ADMITTED)
        bucket = stable_hash(merged[VALUE]) % self.unknown_buckets + UNKNOWN
        return merged.select(VALUE, ID, ADMITTED, bucket.cast(pl.Int32).alias(BUCKET))

    @property
    def keys(self) -> list[str]:
        """Counts are kept by day and value, ids looked up by value."""
        return [DAY, VALUE]

    def encode(self, value: pl.Expr, learnt: Expressions) -> pl.Expr:
        """The id found, or 1 or that of unknown values."""
        unknown = learnt[BUCKET].fill_null(UNKNOWN) if BUCKET in learnt else pl.lit(UNKNOWN, dtype=pl.Int32)
        found = pl.when(learnt[ADMITTED] <= pl.col(DAY)).then(learnt[ID]).otherwise(unknown)
        return pl.when(value.is_null()).then(pl.lit(NULL, dtype=pl.Int32)).otherwise(found)

    def cardinality(self, merged: pl.DataFrame | None) -> int:
        """All values and the reserved ids."""
        return self.first_id if merged is None else highest(merged, self.first_id) + 1

    def inverse(self, ids: pl.Series, vocabulary: pl.DataFrame) -> pl.Series:
        """The values of ids, or of lists of ids; null for reserved ones and those the vocabulary does not have."""
        known = vocabulary.drop_nulls(ID)
        many = isinstance(ids.dtype, pl.List)
        one = pl.element() if many else pl.col(ids.name)
        value = one.replace_strict(known[ID], known[VALUE], default=None, return_dtype=known.schema[VALUE])
        return ids.list.eval(value) if many else ids.to_frame().select(value).to_series()
