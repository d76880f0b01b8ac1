"""Replace ids and other columns by tokens that tell nothing to those without the key, before anything is written.

A token is the keyed BLAKE2b hash of the value as text: the same value has the same token in every column and every night,
as long as the key stays. Raw values reach neither sessions nor quarantine.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Self

import polars as pl
from pydantic import Field, PrivateAttr

from preprocessing.source.events import as_found
from preprocessing.steps import Step
from schemas.columns import ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset
from schemas.errors import InputError, unknown

TOKEN_BYTES, MIN_KEY_BYTES = 16, 16


class Anonymise(Step):
    """Replace the values of `columns` by 32 hexadecimal digits; null stays null."""

    columns: tuple[str, ...] = Field(min_length=1, description="Columns of the events.")
    key_variable: str = Field(
        "OVERNIGHT_ANONYMISE_KEY", description="Environment variable that holds the key, of 16 bytes or more."
    )

    _key: bytes = PrivateAttr()
    _names: tuple[str, ...] = PrivateAttr()

    def bind(self, dataset: Dataset) -> Self:
        """Fetch the key, and refuse columns that others must read."""
        mapped = dataset.events.columns
        for name in self.columns:
            if name not in mapped or name in (TIMESTAMP, POSITION):
                raise unknown("column to anonymise", name, mapped.keys() - {TIMESTAMP, POSITION})
        for name, table in ((ITEM_ID, dataset.items), (USER_ID, dataset.users)):
            if name in self.columns and table is not None:
                raise InputError(f"an anonymous {name} is not found in {table.path!r}; leave one of the two out")
        bound = self.model_copy()
        bound._key = self._fetch_key()
        # Events without users have the session's id for one.
        alias = (USER_ID,) if SESSION_ID in self.columns and USER_ID not in mapped else ()
        bound._names = (*self.columns, *alias)
        return bound

    def read(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Tokens in place of values, also of values as they were found."""
        columns = events.collect_schema().names()
        names = [name for wanted in self._names for name in (wanted, as_found(wanted)) if name in columns]
        return events.with_columns(pl.col(name).map_batches(self._tokens, return_dtype=pl.String) for name in names)

    @property
    def secret(self) -> str:
        """A token of nothing: another key gives another one, and it does not tell the key."""
        return blake2b(b"overnight", key=self._key, digest_size=TOKEN_BYTES).hexdigest()

    def _fetch_key(self) -> bytes:
        key = os.environ.get(self.key_variable, "").encode()
        if len(key) < MIN_KEY_BYTES:
            raise InputError(
                f"the environment variable {self.key_variable} must hold a secret of {MIN_KEY_BYTES} bytes or more; "
                "make one with `openssl rand -hex 32`, and keep it"
            )
        return key if len(key) <= blake2b.MAX_KEY_SIZE else blake2b(key).digest()

    def _tokens(self, values: pl.Series) -> pl.Series:
        distinct = values.drop_nulls().unique()
        tokens = [
            blake2b(str(value).encode(), key=self._key, digest_size=TOKEN_BYTES).hexdigest()
            for value in distinct.to_list()
        ]
        return values.replace_strict(distinct, pl.Series(tokens, dtype=pl.String), default=None, return_dtype=pl.String)
