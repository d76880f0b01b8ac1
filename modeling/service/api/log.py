"""How events of the log become columns as the dataset calls them; what it is for a dataset is for its caller to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl


def as_it_is(table: pl.DataFrame) -> pl.DataFrame:
    """The table."""
    return table


@dataclass(frozen=True)
class Log:
    """`names` are those of the log for columns that the dataset calls otherwise: {"sku": "item_id"}.

    Text among `null_words` is null. `needs` are columns that `derive` reads to compute further ones, each of one row alone;
    those that it `makes` anew need not be given.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    null_words: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    makes: frozenset[str] = frozenset()
    derive: Callable[[pl.DataFrame], pl.DataFrame] = as_it_is
