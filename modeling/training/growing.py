"""Tables that grow: rows of ids that were appended since a model was trained begin where they have something to begin with.

V ids of a table now, R rows of it before, E width.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
import torch
from torch import Tensor

from schemas.columns import FIRST_ID, ID
from schemas.features import FeatureSchema


def same_features(schema: FeatureSchema, items: pl.DataFrame | None) -> list[Tensor]:
    """Groups of items with the same features, the closest first: a number for every id, [V], or -1 where it is in none.

    The first have all features in common that an item has one value of; the rest one each, that of the most values first.
    """
    if items is None:
        return []
    names = [
        column.name
        for column in schema.side_features
        if column.per_item and column.kind == "categorical" and not column.many and column.name in items.columns
    ]
    names.sort(key=lambda name: -items[name].n_unique())
    return [_groups(schema, items, some) for some in ([names] if len(names) > 1 else []) + [[name] for name in names]]


def _groups(schema: FeatureSchema, items: pl.DataFrame, names: list[str]) -> Tensor:
    assert schema.items.cardinality
    whole = items.filter(pl.all_horizontal(pl.col(name) >= FIRST_ID for name in names))  # unknown is nothing in common
    number = whole.select(pl.struct(names).rank("dense").cast(pl.Int64)).to_series()
    group_V = torch.full((schema.items.cardinality,), -1)
    group_V[torch.from_numpy(whole[ID].to_numpy(writable=True)).long()] = torch.from_numpy(
        number.to_numpy(writable=True)
    )
    return group_V


def grown(old: Tensor, row_V: Tensor, groups: Iterable[Tensor] = ()) -> Tensor:
    """The table whose rows are `old[row_V]`, [V] or [V, E]; new rows, of -1, begin at the mean of the rows of their group.

    Those in no group with an old row are drawn from a normal distribution with the mean and the spread of the old rows.
    """
    old, is_new_V = old.float(), row_V < 0
    table = old[row_V.clamp(min=0)]
    rest_V = is_new_V.clone()
    for group_V in groups:
        placed_V = group_V >= 0
        size = int(group_V.max()) + 1 if len(group_V) else 0
        known_V = placed_V & ~is_new_V
        sums = torch.zeros(max(size, 1), *table.shape[1:]).index_add_(0, group_V[known_V], table[known_V])
        count = torch.bincount(group_V[known_V], minlength=max(size, 1))
        fill_V = rest_V & placed_V & (count[group_V.clamp(min=0)] > 0)
        mean = sums[group_V[fill_V]] / as_column(count[group_V[fill_V]], sums)
        table[fill_V] = mean
        rest_V &= ~fill_V
    known = table[~is_new_V]
    if rest_V.any() and len(known):
        drawn = torch.randn(int(rest_V.sum()), *table.shape[1:])
        table[rest_V] = known.mean(0) + known.std(0, correction=0) * drawn
    return table


def as_column(values: Tensor, like: Tensor) -> Tensor:
    """[N] as [N, 1] where `like` has two dimensions."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
