"""Items: what each item's latest event says of it, and the item table of a snapshot."""

from __future__ import annotations

import numpy as np
import polars as pl

from preprocessing.features.feature import Feature
from preprocessing.frames import CPU, Rows, Target, collect
from preprocessing.groups import Groups
from preprocessing.source.values import TIME
from preprocessing.vocabulary import below
from schemas.columns import COUNT, DAY, FIRST_ID, ID, ITEM_ID, TIMESTAMP, VALUE
from schemas.dataset import Dataset

LAST_SEEN = "last_seen"
_KEY, _ITEMS = "key", 2**32
NEVER = -(2**63)


def side_features(features: list[Feature]) -> list[str]:
    """The features that items have: those of events but for the item itself."""
    return [feature.name for feature in features[1:] if feature.per == "event"]


def latest_by_day(encoded: Rows, dataset: Dataset, features: list[Feature], target: Target = CPU) -> pl.DataFrame:
    """Encoded rows -> `day`, `item_id`, `last_seen` and each side feature's value then: a row a day and item."""
    dated, side = TIMESTAMP in dataset.events.columns, side_features(features)
    moment = (pl.col(TIMESTAMP) if dated else pl.lit(None, dtype=TIME)).alias(LAST_SEEN)
    rows = encoded.lazy().select(DAY, ITEM_ID, moment, *side)
    if target != CPU:
        by_key = collect(_newest_by_key(rows.filter(pl.col(ITEM_ID) >= FIRST_ID), side, dated=dated), target)
        # Not on a GPU: cudf-polars 26.10 takes the bytes of an integer for those of a date, which has half as many.
        day = (pl.col(_KEY) // _ITEMS).cast(pl.Int32).cast(pl.Date)
        item = (pl.col(_KEY) % _ITEMS).cast(pl.Int32)
        return by_key.select(day.alias(DAY), item.alias(ITEM_ID), LAST_SEEN, *side)
    there = collect(rows)
    # Without times it is the last row.
    moments = there[LAST_SEEN] if dated else pl.int_range(there.height, eager=True)
    return _newest(there, [DAY, ITEM_ID], moments).filter(pl.col(ITEM_ID) >= FIRST_ID)


def merge_items(parts: list[pl.DataFrame], side: list[str]) -> pl.DataFrame:
    """Tables with `item_id`, `last_seen` and side features, in any order -> one row an item, its latest, in order of id."""
    # Earlier nights may have named the same features in another order.
    together = pl.concat([part.select(ITEM_ID, LAST_SEEN, *side) for part in parts], how="vertical_relaxed").rechunk()
    return _newest(together, [ITEM_ID], together[LAST_SEEN]).sort(ITEM_ID)


def _newest(rows: pl.DataFrame, keys: list[str], moments: pl.Series) -> pl.DataFrame:
    """Rows -> one for each of `keys`, integers or days: that of the latest moment.

    Of rows at the same moment it has each column's smallest value: the same however users were divided.
    """
    if rows.is_empty():
        return rows
    groups = Groups.of([rows[key] for key in keys], sort=True)
    assert groups is not None
    group = groups.of_rows
    when = moments.to_physical().fill_null(NEVER).to_numpy()
    newest = np.full(groups.size, NEVER)
    np.maximum.at(newest, group, when)
    (places,) = np.nonzero(when == newest[group])
    group = group[places]
    alone = np.bincount(group)[group] == 1
    single, tied = (rows[pl.Series(places[which].astype(np.uint32))] for which in (alone, ~alone))
    return pl.concat([single, tied.group_by(keys).agg(pl.all().min()).select(rows.columns)])


def _newest_by_key(rows: pl.LazyFrame, side: list[str], *, dated: bool) -> pl.LazyFrame:
    """The same of rows by day and item as a plan, for a GPU; day and item are packed into a key."""
    # One packed key costs less than two: to group by, and to look up.
    key = (pl.col(DAY).cast(pl.Int32).cast(pl.Int64) * _ITEMS + pl.col(ITEM_ID).cast(pl.Int64)).alias(_KEY)
    keyed = rows.select(key, LAST_SEEN, *side)
    if side and dated:
        keyed = keyed.filter(pl.col(LAST_SEEN) == pl.col(LAST_SEEN).max().over(_KEY))
    latest = pl.col(side).min() if dated else pl.col(side).last()
    return keyed.group_by(_KEY).agg(pl.col(LAST_SEEN).max(), *([latest] if side else []))


def item_table(vocabulary: pl.DataFrame, latest: pl.DataFrame, cardinality: int) -> pl.DataFrame:
    """One row an item id: value, count, and what its latest event says of it."""
    known = below(vocabulary, cardinality).lazy()
    joined = known.join(latest.lazy(), left_on=ID, right_on=ITEM_ID, how="left", maintain_order="left")
    return joined.select(ID, VALUE, COUNT, pl.exclude(ID, VALUE, COUNT)).collect(engine="in-memory")
