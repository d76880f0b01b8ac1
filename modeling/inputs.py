"""From the features of a session file to one vector per event, as the FeatureSchema describes them.

B rows, L places, D width, E width of item vectors, V item ids.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling import objectives
from modeling.batches import Batch
from modeling.config import ModelConfig
from schemas import plugins
from schemas.columns import ITEM_ID
from schemas.features import FeatureColumn, FeatureSchema


class ItemVectors(nn.Module):
    """One vector per item id: the one table that the input reads and the output scores against."""

    def __init__(self, config: ModelConfig, schema: FeatureSchema) -> None:
        super().__init__()
        assert schema.items.cardinality
        self.table_VE = nn.Parameter(torch.empty(schema.items.cardinality, config.item_dim))
        nn.init.xavier_normal_(self.table_VE)

    def of(self, ids: Tensor) -> Tensor:
        """The vectors of some ids, [..., E]."""
        return F.embedding(ids, self.table_VE)

    def all(self) -> Tensor:
        """The vectors of all ids, [V, E]."""
        return self.table_VE


class Inputs(nn.Module):
    """Item vector, side features (concatenated and projected, or summed) and learned positions."""

    def __init__(self, config: ModelConfig, schema: FeatureSchema) -> None:
        super().__init__()
        self.aggregation, self.dropout = config.inputs.aggregation, config.body.dropout
        dim = config.body.dim
        elapsed = [column.name for column in schema.side_features if column.transform == ("elapsed",)]
        self.time = config.inputs.time or (elapsed[0] if elapsed else None)
        self.items = ItemVectors(config, schema)
        side = [column for column in schema.side_features if column.per == "event" and not column.many]
        if config.inputs.features is not None:
            side = [column for column in side if column.name in config.inputs.features]
        self.side_names = [column.name for column in side]
        self.side = nn.ModuleList(SideFeature(column, config) for column in side)
        if side and self.aggregation == "concat":
            self.project = nn.Linear(dim + sum(_width(column, config) for column in side), dim, bias=False)
        objective = plugins.find(objectives, config.objective.name)
        empty = objective.asks and objective.direction != "permuted"  # which never sees what a place to predict holds
        self.mask_D = nn.Parameter(torch.randn(dim) * 0.02) if empty else None
        self.positions = None
        if config.inputs.positions in ("end", "forward"):
            self.place = "from_end" if config.inputs.positions == "end" else "positions"
            self.positions = nn.Embedding(schema.max_length, dim)
            nn.init.xavier_normal_(self.positions.weight)

    def seconds(self, batch: Batch) -> Tensor | None:
        """Seconds since each session's first event, [B, L]; None where the schema knows no times."""
        if self.time is None:
            return None
        upto_BL = batch[self.time].double().cumsum(1)
        first_BL = torch.arange(upto_BL.shape[1], device=upto_BL.device) - batch["positions"]
        return upto_BL - upto_BL.gather(1, first_BL)

    def forward(self, batch: Batch) -> Tensor:
        """x_BLD of a batch."""
        x_BLD = self.items.of(batch[ITEM_ID])
        parts = [feature(batch[name]) for name, feature in zip(self.side_names, self.side, strict=True)]
        x_BLD = (
            self.project(torch.cat([x_BLD, *parts], -1))
            if parts and self.aggregation == "concat"
            else sum(parts, x_BLD)
        )
        if self.mask_D is not None:
            x_BLD = torch.where(batch["masked"].unsqueeze(-1), self.mask_D, x_BLD)
        if self.positions is not None:
            x_BLD = x_BLD + self.positions(batch[self.place])
        x_BLD = F.dropout(x_BLD, self.dropout, self.training)
        return x_BLD * (batch["segments"] > 0).unsqueeze(-1)


class SideFeature(nn.Module):
    """One side feature as a vector: an embedding of a category, a line through a number."""

    def __init__(self, column: FeatureColumn, config: ModelConfig) -> None:
        super().__init__()
        self.categorical = column.kind == "categorical"
        if self.categorical:
            assert column.cardinality
            self.embed = nn.Embedding(column.cardinality, _width(column, config))
            nn.init.normal_(self.embed.weight, std=0.02)
        else:
            self.line = nn.Linear(1, _width(column, config))

    def forward(self, values_BL: Tensor) -> Tensor:
        """[B, L] values to [B, L, width]."""
        if self.categorical:
            return self.embed(values_BL)
        return self.line(values_BL.unsqueeze(-1))


def _width(column: FeatureColumn, config: ModelConfig) -> int:
    """Summed features are as wide as the model; others grow with the fourth root of their cardinality."""
    if config.inputs.aggregation == "sum":
        return config.body.dim
    return min(config.body.dim, 4 * round(column.cardinality**0.25)) if column.cardinality else 4
