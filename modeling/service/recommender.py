"""Recommend from a model folder alone: the one path by which sessions become ranked items, in service and in evaluation.

N histories, E width of item vectors, V items, T items of a tile, K recommendations.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import torch
from torch import Tensor

from modeling.evaluation.ranking import top_k
from modeling.features import stored
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer, predict
from modeling.service.new_items import add_items
from modeling.sessions import Sessions, from_table
from modeling.vocabularies import raw_items, raw_lists
from schemas.columns import COUNT, END, ID, ITEM_ID, NULL, VALUE
from schemas.errors import InputError
from schemas.features import FeatureSchema

ITEMS = "items.parquet"


class Recommender:
    """A model folder ready to recommend: it needs nothing of the run that made it."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self.folder = folder
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = SequenceModel.load(folder).to(self.device)
        self.schema: FeatureSchema = self.model.schema
        self.items = pl.read_parquet(folder / ITEMS, glob=False)

    @cached_property
    def scorer(self) -> ModelScorer:
        """The model as ranking sees it; raises InputError where it has no head for items."""
        return ModelScorer(self.model)

    def predict(self, histories: Sessions) -> dict[str, Tensor]:
        """What each label head foretells after each history, in the label's own unit; float32 of shape [N], by label."""
        return predict(self.model, histories.to(self.device))

    def recommend(self, histories: Sessions, k: int = 10, *, filter_seen: bool = False) -> list[list[Any]]:
        """The raw ids of the k best next items per history, best first.

        Raises:
            InputError: for an empty history, or a model without the head next_item.
        """
        if not bool((histories.lengths > 0).all()):
            raise InputError("A history needs at least one item to recommend from.")
        ids_NK, _ = top_k(self.scorer, histories.to(self.device), k, filter_seen=filter_seen)
        return raw_lists(self.items, ids_NK)

    def raw_items(self, ids: Tensor) -> list[Any]:
        """Raw item ids of encoded ones; None for those that are not in the catalogue."""
        return raw_items(self.items, ids)

    def add_items(self, table: pl.DataFrame) -> tuple[int, int]:
        """Make items scorable that nobody clicked yet; how many were added, and how many of `table` were known already.

        `table` holds raw item ids and the raw columns that item features are made from, named as the dataset names them; a
        column of pretrained vectors may stand beside them. Known items stay as they are. The folder does not change.

        Raises:
            InputError: when the model knows items by their ids alone, or the table lacks what their vectors are made of.
        """
        rows = add_items(self.model, self.items, table, self.folder)
        self.schema, self.scorer = self.model.schema, ModelScorer(self.model)
        self.items = pl.concat([self.items, rows], how="diagonal_relaxed")
        return rows.height, table.height - rows.height

    def histories(self, raw: list[list[Any]]) -> tuple[Sessions, list[Any]]:
        """Sessions of raw item ids, oldest first, and the ids among them that the model does not know.

        An unknown item is read as unknown. Side features take the values last seen with the item; of the session as a whole
        nothing is known.
        """
        dtype = self.items.schema[VALUE]
        try:
            given = pl.DataFrame({VALUE: [item for history in raw for item in history]}, schema={VALUE: pl.String})
            events = given.with_columns(pl.col(VALUE).cast(dtype))
        except pl.exceptions.InvalidOperationError:
            raise InputError(f"Item ids of this model are of type {dtype}; got {raw}") from None
        events = events.join(self.items.drop(COUNT, strict=False), on=VALUE, how="left", maintain_order="left")
        unknown = events.filter(pl.col(ID).is_null())[VALUE].to_list()
        offsets = [0]
        for history in raw:
            offsets.append(offsets[-1] + len(history))
        columns: dict[str, pa.Array] = {END: pa.nulls(len(raw), pa.timestamp("us"))}
        for column in self.schema.columns:
            if column.per == "session":
                nothing = NULL if column.kind == "categorical" and not column.many else None
                columns[column.name] = stored(pl.repeat(nothing, len(raw), eager=True), column)
            else:
                values = stored(events[ID if column.name == ITEM_ID else column.name], column)
                columns[column.name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
        return from_table(pa.table(columns), self.schema), unknown
