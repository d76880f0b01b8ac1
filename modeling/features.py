"""Which side features a model reads, and one of them as a vector: an embedding of a category, a line through a number, or
its soft one-hot.

W values where a place has many (0: none), K vectors of a soft one-hot, D width. Leading dimensions are free.
"""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.config import InputsConfig, ModelConfig
from modeling.draws import rand_of_rows
from modeling.rows import rows_of
from schemas.columns import FIRST_ID, PADDING, UNKNOWN
from schemas.errors import InputError, unknown
from schemas.features import FeatureColumn, FeatureSchema

NUMBER_WIDTH = 8
UNKNOWN_SHARE = 0.01  # of ids that training reads as unknown


def read_features(config: ModelConfig, schema: FeatureSchema) -> tuple[FeatureColumn, ...]:
    """The side features that a model reads, in the order of the schema; times only where they are named.

    Raises:
        InputError: for names that the schema does not have, and a feature that would tell a label to be predicted.
    """
    inputs, side = config.inputs, schema.side_features
    for key, named in (("inputs.features", inputs.features or ()), ("inputs.dims", inputs.dims)):
        for name in named:
            if name not in [column.name for column in side]:
                raise unknown(f"feature in {key}", name, [column.name for column in side])
    time = time_feature(inputs, schema)
    read = tuple(
        column for column in side if (column != time if inputs.features is None else column.name in inputs.features)
    )
    for label in schema.labels:
        telling = [column.name for column in read if column.source == label.source]
        if label.name in config.heads and telling:
            raise InputError(
                f"Feature {telling[0]!r} is made from the column {label.source!r}, and so is the label {label.name!r} that a "
                "head predicts: it would tell the answer. Leave it out of inputs.features, or the label out of heads."
            )
    return read


def time_feature(inputs: InputsConfig, schema: FeatureSchema) -> FeatureColumn | None:
    """The feature that holds seconds since the previous event, if there is one.

    Raises:
        InputError: for `inputs.time` that names none, or one that cannot hold them.
    """
    moments = [
        column
        for column in schema.side_features
        if column.kind == "continuous" and column.per == "event" and not column.many
    ]
    if inputs.time is None:
        return next((column for column in moments if column.transform == ("elapsed",)), None)
    for column in moments:
        if column.name == inputs.time:
            return column
    raise unknown("feature of one number an event in inputs.time", inputs.time, [column.name for column in moments])


class Feature(nn.Module):
    """One side feature as a vector of `width`: the one asked for, or one of its own."""

    def __init__(self, column: FeatureColumn, inputs: InputsConfig, width: int | None = None) -> None:
        super().__init__()
        own = inputs.dims.get(column.name) or width or default_width(column)
        self.width = width or own
        self.value: nn.Module
        if column.kind == "categorical":
            assert column.cardinality
            self.value = Category(column.cardinality, own, column.many)
        else:
            soft = inputs.continuous == "soft_one_hot"
            number = SoftOneHot(inputs.soft_vectors, own) if soft else Line(own)
            self.value = nn.Sequential(MeanNumber(), number) if column.many else number
        self.project = nn.Linear(own, self.width, bias=False) if own != self.width else None
        self.norm = nn.LayerNorm(self.width) if inputs.feature_norm else None

    def reach(self, values: Tensor) -> None:
        """Take the values that training reads."""
        if isinstance(self.value, Category):
            self.value.reached.set(values)

    def forward(self, values: Tensor) -> Tensor:
        """Values [...], or [..., W] where a place has many, to [..., width]."""
        x: Tensor = self.value(values)
        x = self.project(x) if self.project else x
        return self.norm(x) if self.norm else x


def default_width(column: FeatureColumn) -> int:
    """2 * cardinality^(1/4), rounded up; 8 for a number."""
    return math.ceil(2 * column.cardinality**0.25) if column.cardinality else NUMBER_WIDTH


class Reached(nn.Module):
    """Which ids training reads. Any other is read as the unknown one, which training puts in place of some of them."""

    def __init__(self, cardinality: int) -> None:
        super().__init__()
        self.register_buffer("reached_V", torch.ones(cardinality, dtype=torch.bool))
        self.reached_V: Tensor

    def set(self, *ids: Tensor) -> None:
        """Take the ids that training reads."""
        self.reached_V.fill_(False)
        self.reached_V[[PADDING, UNKNOWN]] = True  # nothing, and what training puts there itself
        for some in ids:
            self.reached_V[some.flatten().long().to(self.reached_V.device)] = True

    def forward(self, ids: Tensor) -> Tensor:
        """The ids as they are read."""
        return torch.where(self.reached_V[ids], ids, UNKNOWN)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Folders of before this was recorded: every id is read as it is."""
        state_dict.setdefault(f"{prefix}reached_V", torch.ones_like(self.reached_V))
        super()._load_from_state_dict(state_dict, prefix, *args)


def forget(ids: Tensor) -> Tensor:
    """A few ids become unknown, so that training reaches what stands for ids it has not seen."""
    return ids.masked_fill((rand_of_rows(ids.shape, ids.device) < UNKNOWN_SHARE) & (ids >= FIRST_ID), UNKNOWN)


class Category(nn.Embedding):
    """A vector per id; of many ids the mean of theirs, zero where there is none."""

    def __init__(self, cardinality: int, width: int, many: bool) -> None:
        super().__init__(cardinality, width)
        self.many = many
        self.reached = Reached(cardinality)
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """[...] or [..., W] to [..., width]."""
        ids = self.reached(forget(ids) if self.training else ids)
        if not self.many:
            return rows_of(self.weight, ids)
        bags = F.embedding_bag(ids.reshape(-1, ids.shape[-1]), self.weight, mode="mean", padding_idx=PADDING)
        return bags.reshape(*ids.shape[:-1], bags.shape[-1])


class Line(nn.Linear):
    """x * a + b."""

    def __init__(self, width: int) -> None:
        super().__init__(1, width)

    def forward(self, number: Tensor) -> Tensor:
        """[...] to [..., width]."""
        return super().forward(number.unsqueeze(-1))


class SoftOneHot(nn.Module):
    """softmax(x * a + b) . table: a mixture of K learned vectors (Transformers4Rec, doi:10.1145/3460231.3474255)."""

    def __init__(self, num_vectors: int, width: int) -> None:
        super().__init__()
        self.weigh = Line(num_vectors)
        self.table_KD = nn.Parameter(torch.empty(num_vectors, width))
        nn.init.normal_(self.table_KD, std=0.02)

    def forward(self, number: Tensor) -> Tensor:
        """[...] to [..., width]."""
        weights: Tensor = self.weigh(number).softmax(-1)
        return weights @ self.table_KD


class MeanNumber(nn.Module):
    """Of many numbers the mean, 0 where there is none; a 0 is none."""

    def forward(self, numbers: Tensor) -> Tensor:
        """[..., W] to [...]."""
        return numbers.sum(-1) / (numbers != 0).sum(-1).clamp(min=1)


def stored(values: pl.Series, column: FeatureColumn) -> pa.Array:
    """Encoded values as a session file holds them; what is missing becomes unknown, 0, or an empty list."""
    dtype = pl.Int32 if column.dtype == "int32" else pl.Float32
    if column.many:
        return values.cast(pl.List(dtype)).fill_null([]).to_arrow()
    return values.cast(dtype).fill_null(UNKNOWN if column.kind == "categorical" else 0.0).to_arrow()
