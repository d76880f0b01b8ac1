"""Read sessions that were encoded by one schema with a model that learned another: yesterday's model on today's sessions.

Ids go back to raw values and to the other vocabulary's ids; numbers are scaled back and scaled again.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID, ID, UNKNOWN, VALUE
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema


def translate(cases: Cases, given: Path, wanted: Path) -> Cases:
    """Cases encoded as `given/schema.json` says, encoded as `wanted/schema.json` says.

    A value that the wanted vocabulary does not hold becomes unknown, also as a target.

    Raises:
        InputError: when the model needs a feature that the sessions do not have, or have in another form.
    """
    schemas = [FeatureSchema.read(folder / "schema.json") for folder in (given, wanted)]
    events: dict[str, Tensor] = {}
    context: dict[str, Tensor] = {}
    for column in schemas[1].columns:
        here = schemas[0].column(column.name)
        if _form(here) != _form(column):
            raise InputError(f"Feature {column.name!r} is made another way now ({here.transform}) than the model's.")
        source, target = (cases.history.events, events) if column.per == "event" else (cases.history.context, context)
        target[column.name] = _translated(source[column.name], given, here, wanted, column)
    items = _id_map(given, schemas[0].items, wanted, schemas[1].items)
    history: Sessions = replace(cases.history, events=events, context=context)
    return Cases(history, items[cases.target].long())


def _form(column: FeatureColumn) -> tuple[object, ...]:
    return column.kind, column.transform, column.vocabulary is None, column.per, column.many


def _translated(values: Tensor, given: Path, here: FeatureColumn, wanted: Path, there: FeatureColumn) -> Tensor:
    """Where there are many values, a 0 is none and stays."""
    if there.vocabulary:
        return _id_map(given, here, wanted, there)[values.long()]
    if there.kind == "categorical":
        return values
    scaled = (values * here.std + here.mean - there.mean) / there.std
    return scaled.masked_fill(values == 0, 0.0) if there.many else scaled


def _id_map(given: Path, here: FeatureColumn, wanted: Path, there: FeatureColumn) -> Tensor:
    """The wanted id of every given id, int32 of shape [given cardinality]."""
    assert here.cardinality and here.vocabulary and there.vocabulary
    old = pl.read_parquet(given / here.vocabulary, glob=False).select(ID, VALUE)
    new = pl.read_parquet(wanted / there.vocabulary, glob=False).select(VALUE, pl.col(ID).alias("wanted"))
    if old.schema[VALUE] != new.schema[VALUE]:
        raise InputError(f"{here.name!r} holds {old.schema[VALUE]} values now, the model learned {new.schema[VALUE]}.")
    pairs = old.join(new, on=VALUE)
    table = np.full(here.cardinality, UNKNOWN, dtype=np.int32)
    table[:FIRST_ID] = np.arange(FIRST_ID)
    table[pairs[ID].to_numpy()] = pairs["wanted"].to_numpy()
    return torch.from_numpy(table)


def raw_items(items: pl.DataFrame, ids: Tensor) -> list[Any]:
    """Raw item ids of the encoded ones of an item table (`id`, `value`); None for those that it does not hold."""
    wanted = pl.DataFrame({ID: ids.cpu().numpy()}, schema={ID: items.schema[ID]})
    return wanted.join(items.select(ID, VALUE), on=ID, how="left", maintain_order="left")[VALUE].to_list()


def raw_lists(items: pl.DataFrame, ids_NK: Tensor) -> list[list[Any]]:
    """N lists of raw item ids from rows of encoded ones, whose zeros at the end are left out; by one look-up for all."""
    kept_NK = ids_NK >= FIRST_ID
    raw = iter(raw_items(items, ids_NK[kept_NK]))
    return [list(islice(raw, count)) for count in kept_NK.sum(1).tolist()]
