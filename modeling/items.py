"""The vector of an item: of its id, of vectors made elsewhere, of its features. Inputs read it, outputs score against it.

With features or vectors, an item that nobody ever clicked has a vector too: that of the unknown id joined by its features.
So that the unknown id's says something, training takes it for an item's own now and then (as DropoutNet does, NeurIPS 2017).

V item ids, N new items, E width of item vectors, W values of an item that has many.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.config import InputsConfig, ModelConfig
from modeling.draws import rand_of_rows
from modeling.features import Feature, Reached, read_features, stored
from modeling.rows import rows_of
from modeling.sessions import values_of
from modeling.shards import Shard
from modeling.vectors import Pretrained, read_vectors
from schemas.columns import FIRST_ID, ID, UNKNOWN, VALUE
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema


class ItemVectors(nn.Module):
    """One vector per item id: the one table that the input reads and the output scores against."""

    def __init__(self, config: ModelConfig, schema: FeatureSchema) -> None:
        super().__init__()
        inputs, num_ids = config.inputs, schema.items.cardinality
        assert num_ids
        self.id_dropout = inputs.id_dropout
        self.sparse = False  # whether the gradient of `table_VE` holds only the rows read
        self.shard: Shard | None = None  # which rows of `table_VE` are here, where processes divide them
        self.reached = Reached(num_ids)
        self.table_VE = nn.Parameter(torch.empty(num_ids, config.item_dim))
        nn.init.xavier_normal_(self.table_VE)
        self.pretrained = Pretrained(inputs.pretrained, num_ids, config.item_dim) if inputs.pretrained else None
        self.tower: Tower | None = None
        if inputs.item_tower != "none":
            columns = [column for column in read_features(config, schema) if _is_of_items(column)]
            self.tower = Tower(columns, inputs, num_ids, config.item_dim)

    @property
    def columns(self) -> tuple[FeatureColumn, ...]:
        """The features that are read of items, not of events."""
        return self.tower.columns if self.tower else ()

    @property
    def stands_without_ids(self) -> bool:
        """Whether a vector says more than which item it is, so that a new item can have one."""
        return self.tower is not None or self.pretrained is not None

    def of(self, ids: Tensor, event: dict[str, Tensor] | None = None) -> Tensor:
        """The vectors of some ids, [..., E].

        Where events are read, `event` has their features: an item that training never read is read as unknown, and of an id
        that is no item (unknown, most of all) features are taken from there. With an id dropout of 1 all items are read so,
        in inference too: they are their features alone.
        """
        read = self.reached(ids) if event is not None else ids
        if self.stands_without_ids and (self.training or self.id_dropout == 1) and self.id_dropout:
            dropped = (rand_of_rows(ids.shape, ids.device) < self.id_dropout) & (ids >= FIRST_ID)
            read = ids.masked_fill(dropped, UNKNOWN)
        if self.shard:
            return self.shard.read(self.table_VE, read, sparse=self.sparse)
        x = rows_of(self.table_VE, read, sparse=self.sparse)
        if self.pretrained:
            x = self.pretrained(x, ids)
        return self.tower(x, ids, event) if self.tower else x

    def all(self) -> Tensor:
        """The vectors of all ids, [V, E]."""
        if not self.stands_without_ids:
            return self.table_VE
        return self.of(torch.arange(len(self.table_VE), device=self.table_VE.device))

    def set_items(self, items: pl.DataFrame | None, progress: Callable[[str], object]) -> None:
        """Take the features of items from the item table (id, raw value, encoded features), their vectors from the file.

        Raises:
            InputError: when they are needed and cannot be read.
        """
        if not self.stands_without_ids:
            return
        if items is None:
            raise InputError(
                "An item tower and pretrained vectors need the item table of the sessions (items.parquet)."
            )
        ids = torch.from_numpy(items[ID].to_numpy(writable=True)).long()
        if self.tower:
            self.tower.set_values(
                ids, [values_of(stored(items[column.name], column), column) for column in self.columns]
            )
        if self.pretrained:
            vectors, has_vector_N = read_vectors(self.pretrained.config, items[VALUE])
            self.pretrained.set_vectors(ids[has_vector_N], vectors)
            missing = len(has_vector_N) - len(vectors)
            progress(
                f"Pretrained vectors of width {vectors.shape[1]:,} for {len(vectors):,} of {len(has_vector_N):,} items"
                + (f"; {missing:,} have none and get zeros." if missing else ".")
            )

    @torch.no_grad()
    def add(self, values: list[Tensor], vectors: Tensor | None, count: int) -> None:
        """Append items that nobody clicked yet: the values of `columns`, and pretrained vectors, if there are any."""
        unknown_NE = self.table_VE[UNKNOWN].expand(count, -1)
        self.table_VE = nn.Parameter(torch.cat([self.table_VE, unknown_NE]))
        self.reached.reached_V = F.pad(self.reached.reached_V, (0, count), value=True)
        if self.tower:
            self.tower.add(values)
        if self.pretrained:
            self.pretrained.add(vectors, count)


class Tower(nn.Module):
    """An item's vector from that of its id and its features: their sum, or the id's and what an MLP makes of all."""

    def __init__(self, columns: list[FeatureColumn], inputs: InputsConfig, num_ids: int, item_dim: int) -> None:
        super().__init__()
        if not columns:
            raise InputError(
                "inputs.item_tower: none of the features that are read belongs to items. Those do whose column is joined "
                "from the item table (step join_items)."
            )
        self.columns = tuple(columns)
        width = item_dim if inputs.item_tower == "sum" else None
        self.features = nn.ModuleList(ItemFeature(column, inputs, width, num_ids) for column in columns)
        self.mix: nn.Sequential | None = None
        if inputs.item_tower == "concat":
            widths = sum(feature.vector.width for feature in self._features)
            last = nn.Linear(item_dim, item_dim)
            nn.init.normal_(last.weight, std=0.02)  # begin near the id's vector
            nn.init.zeros_(last.bias)
            first = nn.Linear(item_dim + widths, item_dim)
            # Without the norm, the MLP hardly sees what tables begin with, and learns far slower (LOG.md).
            self.mix = nn.Sequential(nn.LayerNorm(item_dim + widths), first, nn.GELU(), last)

    def forward(self, x: Tensor, ids: Tensor, event: dict[str, Tensor] | None) -> Tensor:
        """[..., E]"""
        parts = [feature(ids, event[feature.name] if event else None) for feature in self._features]
        if self.mix:
            return x + self.mix(torch.cat([x, *parts], -1))
        return sum(parts, x)

    def set_values(self, ids: Tensor, values: list[Tensor]) -> None:
        """Take the values of some ids, a tensor for each of `columns`."""
        for feature, value in zip(self._features, values, strict=True):
            feature.set_values(ids, value)

    def add(self, values: list[Tensor]) -> None:
        """Append ids with their values, a tensor for each of `columns`."""
        for feature, value in zip(self._features, values, strict=True):
            feature.values_V = torch.cat(_as_wide(feature.values_V, value.to(feature.values_V)))

    def reach(self, ids: Tensor) -> None:
        """Take the items that training reads or scores."""
        for feature in self._features:
            feature.vector.reach(feature.values_V[ids.unique().long()])

    @property
    def _features(self) -> list[ItemFeature]:
        return [feature for feature in self.features if isinstance(feature, ItemFeature)]


class ItemFeature(nn.Module):
    """One feature of items: its value for every id, kept with the weights (0 for ids that are no items), and its vector."""

    def __init__(self, column: FeatureColumn, inputs: InputsConfig, width: int | None, num_ids: int) -> None:
        super().__init__()
        self.name = column.name
        self.vector = Feature(column, inputs, width)
        dtype = torch.int32 if column.dtype == "int32" else torch.float32
        self.values_V: Tensor
        self.register_buffer("values_V", torch.zeros((num_ids, 1) if column.many else num_ids, dtype=dtype))

    def set_values(self, ids: Tensor, values: Tensor) -> None:
        """Take the values of some ids."""
        values_V = self.values_V.new_zeros(len(self.values_V), *values.shape[1:])
        values_V[ids] = values.to(values_V)
        self.values_V = values_V

    def forward(self, ids: Tensor, of_event: Tensor | None) -> Tensor:
        """[..., width] of ids [...]; where those are no items, of the event's values."""
        values = self.values_V[ids]
        if of_event is not None:
            values, of_event = _as_wide(values, of_event)
            no_item = (ids < FIRST_ID).reshape(*ids.shape, *[1] * (values.dim() - ids.dim()))
            values = torch.where(no_item, of_event.to(values.dtype), values)
        vector: Tensor = self.vector(values)
        return vector

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        saved = state_dict.get(f"{prefix}values_V")
        if saved is not None and saved.dim() == self.values_V.dim():  # as many values an item as were saved
            self.values_V = self.values_V.new_zeros(len(self.values_V), *saved.shape[1:])
        super()._load_from_state_dict(state_dict, prefix, *args)


def _is_of_items(column: FeatureColumn) -> bool:
    return column.per_item and column.per == "event"


def _as_wide(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both with room for as many values as the wider one has; single values stay."""
    if left.dim() == right.dim() and left.shape[-1] != right.shape[-1] and left.dim() > 1:
        width = max(left.shape[-1], right.shape[-1])
        return F.pad(left, (0, width - left.shape[-1])), F.pad(right, (0, width - right.shape[-1]))
    return left, right
