"""Encode rows of several days as a night does: fit to each part, merge, look up, transform, and go on with the state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from preprocessing.engines import Engine, engine_of
from preprocessing.features.feature import Feature, FittedFeature
from preprocessing.features.state import FeatureState, Statistics, fit_next, merge
from preprocessing.frames import to_host
from schemas.columns import DAY

ROW = "row"


def encode_batch(
    features: Sequence[Feature],
    parts: Sequence[pl.DataFrame],
    before: FeatureState,
    keep: Sequence[str] = (ROW,),
    engine: Engine | None = None,
) -> tuple[pl.DataFrame, FeatureState, Statistics]:
    """Rows of some users each, of later days than the state is of: their features, the state after them, their statistics."""
    engine = engine or engine_of("cpu")
    fitted, after = [FittedFeature(feature) for feature in features], dict(before)
    statistics: Statistics = {}
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
    return pl.concat(to_host(engine.transform(part, fitted, keep)) for part in parts), after, statistics


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
