"""Items: what each item's latest event says of it, and the item table of a snapshot."""

from __future__ import annotations

import polars as pl

from preprocessing.features.feature import Feature
from preprocessing.frames import CPU, Target, collect
from preprocessing.source.values import TIME
from preprocessing.vocabulary import below
from schemas.columns import COUNT, DAY, FIRST_ID, ID, ITEM_ID, TIMESTAMP, VALUE
from schemas.dataset import Dataset

LAST_SEEN = "last_seen"
_KEY, _ITEMS = "key", 2**32


def side_features(features: list[Feature]) -> list[str]:
    """The features that items have: those of events but for the item itself."""
    return [feature.name for feature in features[1:] if feature.per == "event"]


def latest_by_day(
    encoded: pl.LazyFrame, dataset: Dataset, features: list[Feature], target: Target = CPU
) -> pl.DataFrame:
    """Encoded rows -> `day`, `item_id`, `last_seen` and each side feature's value then: a row a day and item."""
    side = side_features(features)
    # One packed key costs less than two: to group by, and to look up.
    key = (pl.col(DAY).cast(pl.Int32).cast(pl.Int64) * _ITEMS + pl.col(ITEM_ID).cast(pl.Int64)).alias(_KEY)
    dated = TIMESTAMP in dataset.events.columns
    moment = (pl.col(TIMESTAMP) if dated else pl.lit(None, dtype=TIME)).alias(LAST_SEEN)
    keyed = encoded.filter(pl.col(ITEM_ID) >= FIRST_ID).select(key, moment, *side)
    if side and dated:
        # Of events at the same moment, the smallest values: the same however users were divided.
        keyed = keyed.filter(pl.col(LAST_SEEN) == pl.col(LAST_SEEN).max().over(_KEY))
    latest = pl.col(side).min() if dated else pl.col(side).last()
    by_key = keyed.group_by(_KEY).agg(pl.col(LAST_SEEN).max(), *([latest] if side else []))
    # Not on a GPU: cudf-polars 26.10 takes an integer for a date as if both were of eight bytes, and the days are others.
    day, item = (pl.col(_KEY) // _ITEMS).cast(pl.Int32).cast(pl.Date), (pl.col(_KEY) % _ITEMS).cast(pl.Int32)
    return collect(by_key, target).select(day.alias(DAY), item.alias(ITEM_ID), LAST_SEEN, *side)


def merge_items(parts: list[pl.DataFrame], side: list[str]) -> pl.DataFrame:
    """Tables with `item_id`, `last_seen` and side features, in any order -> one row an item, its latest, in order of id."""
    # Earlier nights may have named the same features in another order.
    together = pl.concat([part.select(ITEM_ID, LAST_SEEN, *side) for part in parts], how="vertical_relaxed").lazy()
    if side:
        newest = pl.col(LAST_SEEN).eq_missing(pl.col(LAST_SEEN).max().over(ITEM_ID))
        together = together.filter(newest)
    latest = [pl.col(side).min()] if side else []
    return together.group_by(ITEM_ID).agg(pl.col(LAST_SEEN).max(), *latest).sort(ITEM_ID).collect(engine="in-memory")


def item_table(vocabulary: pl.DataFrame, latest: pl.DataFrame, cardinality: int) -> pl.DataFrame:
    """One row an item id: value, count, and what its latest event says of it."""
    known = below(vocabulary, cardinality).lazy()
    joined = known.join(latest.lazy(), left_on=ID, right_on=ITEM_ID, how="left", maintain_order="left")
    return joined.select(ID, VALUE, COUNT, pl.exclude(ID, VALUE, COUNT)).collect(engine="in-memory")
