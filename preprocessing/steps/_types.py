"""Types of events as a dataset names them and as events have them."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from preprocessing.source.values import alike
from schemas.columns import EVENT_TYPE
from schemas.errors import InputError, unknown


def types_as(events: pl.LazyFrame, named: Iterable[int | str], step: str) -> pl.Series:
    """The types named in YAML in the type of the column `event_type`: of integers, "0" is 0; of text, 0 is "0".

    Raises:
        InputError: for a type that the column cannot hold, and when a step before took the column away.
    """
    columns = events.collect_schema()
    if EVENT_TYPE not in columns:
        raise InputError(
            f"step {step}: {unknown('column', EVENT_TYPE, columns)} An earlier step drops or renames it; put this one first."
        )
    wanted = columns[EVENT_TYPE]
    try:
        return alike(pl.Series([str(one) for one in named], dtype=pl.String), wanted)
    except InputError as error:
        raise InputError(f"step {step}: {EVENT_TYPE}: {error}.") from None
