"""Encode rows of several days as a night does: fit to each part, merge, look up, transform, and go on with the state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import polars as pl

from preprocessing.engines import Engine, engine_of
from preprocessing.features.compile import compile_features
from preprocessing.features.feature import Feature, FittedFeature
from preprocessing.features.state import FeatureState, Statistics, fit_next, merge
from preprocessing.sessions import SESSION_INDEX
from schemas.columns import DAY
from tests.preprocessing.small import dataset_of

ROW = "row"
BASE = ("user_id", "item_id", "timestamp", DAY, SESSION_INDEX)


def features_of(rows: pl.DataFrame, features: dict[str, Any], **parts: Any) -> list[Feature]:
    """The features of a dataset with these rows."""
    columns = rows.schema
    dataset = dataset_of(".", columns=[name for name in columns if name not in BASE], features=features, **parts)
    return compile_features(
        dataset, pl.Schema({name: columns[name] for name in columns if name not in (DAY, SESSION_INDEX)})
    )


def encode_batch(
    features: Sequence[Feature],
    parts: Sequence[pl.DataFrame],
    before: FeatureState,
    keep: Sequence[str] = (ROW,),
    engine: Engine | None = None,
) -> tuple[pl.DataFrame, FeatureState, Statistics]:
    """Rows of some users each, of later days than the state is of: their features, the state after them, their statistics."""
    engine = engine or engine_of("cpu")
    fitted, after, statistics = [FittedFeature(feature) for feature in features], dict(before), {}
    while pending := [feature for feature in fitted if feature.next_to_fit]:
        tables: dict[str, list[pl.DataFrame]] = {}
        for part in parts:
            for feature, table in zip(pending, engine.fit(part, pending), strict=True):
                tables.setdefault(feature.state_name, []).append(table)
        counted = {name: pl.concat(found, how="vertical_relaxed") for name, found in tables.items()}
        merged = merge(features, before, counted)
        fitted = fit_next(fitted, before, counted, merged)
        after |= {name: merged[name] for name in counted}
        statistics |= counted
    return pl.concat(engine.transform(part, fitted, keep) for part in parts), after, statistics


def encode_days(
    features: Sequence[Feature], rows: pl.DataFrame, batches: Sequence[Sequence[date]], buckets: int = 1
) -> tuple[pl.DataFrame, FeatureState]:
    """Rows in batches of days, each in parts by user, in the order of their column `row`; and the state after them."""
    state: FeatureState = {}
    encoded = []
    for days in batches:
        batch = rows.filter(pl.col(DAY).is_in(list(days)))
        users = [batch.filter(pl.col("user_id") % buckets == bucket) for bucket in range(buckets)]
        batch_encoded, state, _ = encode_batch(features, users, state)
        encoded.append(batch_encoded)
    return pl.concat(encoded).sort(ROW), state


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
