"""From the features of a session file to one vector per event, as the FeatureSchema describes them.

B rows, L places, D width, V item ids.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.config import ModelConfig
from modeling.data import Batch
from schemas.columns import ITEM_ID, PADDING
from schemas.features import FeatureColumn, FeatureSchema


class Inputs(nn.Module):
    """Item vector, side features (concatenated and projected, or summed) and learned positions.

    `items_VD` is the one table of item vectors: the output scores against it too.
    """

    def __init__(self, config: ModelConfig, schema: FeatureSchema) -> None:
        super().__init__()
        assert schema.items.cardinality
        self.aggregation, self.dropout = config.features, config.dropout
        self.items_VD = nn.Parameter(torch.empty(schema.items.cardinality, config.dim))
        nn.init.xavier_normal_(self.items_VD)
        side = schema.side_features if config.features != "none" else ()
        self.side_names = [column.name for column in side]
        self.side = nn.ModuleList(SideFeature(column, config) for column in side)
        if side and config.features == "concat":
            width = config.dim + sum(_width(column, config) for column in side)
            self.project = nn.Linear(width, config.dim, bias=False)
            with torch.no_grad():  # begin as the item vector alone: side features earn their weight
                self.project.weight.zero_()
                self.project.weight[:, : config.dim].copy_(torch.eye(config.dim))
                nn.init.normal_(self.project.weight[:, config.dim :], std=0.02)
        self.positions = None
        if config.positions in ("end", "forward"):
            self.positions = nn.Embedding(schema.max_length, config.dim)
            nn.init.xavier_normal_(self.positions.weight)

    def forward(self, batch: Batch) -> Tensor:
        """x_BLD of a packed batch."""
        x_BLD = F.embedding(batch[ITEM_ID], self.items_VD)
        parts = [feature(batch[name]) for name, feature in zip(self.side_names, self.side, strict=True)]
        if parts and self.aggregation == "concat":
            x_BLD = self.project(torch.cat([x_BLD, *parts], -1))
        else:
            x_BLD = sum(parts, x_BLD)
        if self.positions is not None:
            x_BLD = x_BLD + self.positions(batch["positions"])
        x_BLD = F.dropout(x_BLD, self.dropout, self.training)
        return x_BLD * (batch["segments"] != PADDING).unsqueeze(-1)


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
    if config.features == "sum":
        return config.dim
    return min(config.dim, 4 * round(column.cardinality**0.25)) if column.cardinality else 4
