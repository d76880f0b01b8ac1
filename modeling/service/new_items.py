"""Items that nobody clicked yet become rows of a model's catalogue, from their raw ids and raw features.

N new items, P width of pretrained vectors.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from modeling.features import stored
from modeling.model import SequenceModel
from modeling.service.encoding import Vocabularies, encoded
from modeling.service.values import as_type
from modeling.sessions import values_of
from modeling.vectors import as_matrix
from schemas.columns import COUNT, FIRST_ID, ID, UNKNOWN, VALUE
from schemas.errors import InputError
from schemas.features import FeatureColumn

WHAT = "new items"


def add_items(model: SequenceModel, item_table: pl.DataFrame, table: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Append the items of `table` that are not in `item_table` to the catalogue; their rows of an item table.

    A new item's vector is that of the unknown id joined by its features, its output bias the median one. The same becomes of an
    item of `table` that has an id but no training event, and so could not be recommended.

    Raises:
        InputError: when the model scores ids alone, or the table lacks what vectors are made of.
    """
    items, head, schema = model.inputs.items, model.next_item, model.schema
    if not items.stands_without_ids:
        raise InputError(
            "This model knows an item by its id alone, so it cannot score one that it was not trained on. Train it with "
            "inputs.item_tower: sum or concat, or with inputs.pretrained."
        )
    if head.items_VE is not None:
        raise InputError(
            "This model scores against a table of its own (heads.next_item.table: separate), which has no row for an item "
            "that it was not trained on. Train it with table: shared."
        )
    _require([schema.items, *items.columns], table)
    raw = as_type(table[schema.items.source], item_table.schema[VALUE], WHAT)
    table = table.with_columns(raw.alias(VALUE)).drop_nulls(VALUE).unique(VALUE, keep="last", maintain_order=True)
    in_vocabulary = item_table.join(table, on=VALUE, how="semi")[ID]
    table = table.join(item_table, on=VALUE, how="anti", maintain_order="left")
    vocabularies = Vocabularies(folder)
    rows = {column.name: encoded(table[column.source], column, vocabularies, WHAT) for column in items.columns}
    values = [values_of(stored(rows[column.name], column), column) for column in items.columns]
    _make_untrained_rankable(model, in_vocabulary)
    items.add(values, _vectors(model, table), table.height)
    head.add(table.height)
    first = schema.items.cardinality
    assert first
    grown = schema.items.model_copy(update={"cardinality": first + table.height})
    model.schema = schema.model_copy(update={"columns": (grown, *schema.columns[1:])})
    ids = pl.int_range(first, first + table.height, eager=True)
    return pl.DataFrame({ID: ids, VALUE: table[VALUE], COUNT: pl.repeat(0, table.height, eager=True), **rows})


@torch.no_grad()
def _make_untrained_rankable(model: SequenceModel, ids: pl.Series) -> None:
    items, head = model.inputs.items, model.next_item
    id_N = torch.from_numpy(ids.to_numpy(writable=True)).long().to(head.popularity_V.device)
    id_N = id_N[head.popularity_V[id_N - FIRST_ID] == 0]
    items.table_VE[id_N] = items.table_VE[UNKNOWN].clone()
    head.make_rankable(id_N - FIRST_ID)


def _vectors(model: SequenceModel, table: pl.DataFrame) -> Tensor | None:
    pretrained = model.inputs.items.pretrained
    if pretrained is None or pretrained.config.column not in table.columns:
        return None
    vectors, has_vector_N = as_matrix(table[pretrained.config.column], pretrained.width, "the new items")
    vectors_NP = torch.zeros(table.height, pretrained.width)
    vectors_NP[has_vector_N] = vectors
    return vectors_NP


def _require(columns: list[FeatureColumn], table: pl.DataFrame) -> None:
    missing = [column.source for column in columns if column.source not in table.columns]
    if missing:
        raise InputError(
            f"New items need the columns {', '.join(column.source for column in columns)}; there is no "
            f"{', '.join(missing)} among {', '.join(table.columns) or 'none'}."
        )
