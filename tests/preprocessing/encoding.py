"""Encode rows of several days as a night does."""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl

from flows.laws.encoding import ROW as ROW
from flows.laws.encoding import encode_batch as encode_batch
from flows.laws.encoding import encode_days as encode_days
from preprocessing.features.compile import compile_features
from preprocessing.features.feature import Feature
from preprocessing.sessions import SESSION_INDEX
from schemas.columns import DAY
from tests.preprocessing.small import dataset_of

BASE = ("user_id", "item_id", "timestamp", DAY, SESSION_INDEX)


def features_of(rows: pl.DataFrame, features: dict[str, Any], **parts: Any) -> list[Feature]:
    """The features of a dataset with these rows."""
    columns = rows.schema
    dataset = dataset_of(".", columns=[name for name in columns if name not in BASE], features=features, **parts)
    return compile_features(
        dataset, pl.Schema({name: columns[name] for name in columns if name not in (DAY, SESSION_INDEX)})
    )


def encode(
    values: dict[str, list[Any] | pl.Series], feature: Any, days: list[int] | None = None, **parts: Any
) -> list[Any]:
    """The values of one feature, `out`, of events that each are a session, all at once, on the first day or on `days`."""
    count = len(next(iter(values.values())))
    numbered = {"user_id": list(range(count)), "item_id": ["x"] * count, SESSION_INDEX: list(range(1, count + 1))}
    rows = pl.DataFrame(
        {ROW: list(range(count)), **numbered, DAY: [date(2024, 1, 1 + day) for day in days or [0] * count]}
    )
    rows = rows.with_columns(timestamp=pl.col(DAY).cast(pl.Datetime("us", "UTC")))
    rows = rows.with_columns(pl.Series(name, value) for name, value in values.items())
    features = features_of(rows, {"out": feature}, **parts)
    return encode_days(features, rows, [rows[DAY].unique().to_list()])[0]["out"].to_list()
