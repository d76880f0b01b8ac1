"""Read sessions that were encoded by one schema with a model that learned another: yesterday's model on today's sessions.

Ids go back to raw values and to the other vocabulary's ids; numbers are scaled back and scaled again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from modeling.data import Cases, Sessions
from schemas.columns import FIRST_ID, ID, ITEM_ID, UNKNOWN, VALUE
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
    for column in (schemas[1].items, *schemas[1].side_features):
        here = schemas[0].column(column.name)
        if (here.kind, here.transform, here.vocabulary is None) != (
            column.kind,
            column.transform,
            column.vocabulary is None,
        ):
            raise InputError(f"Feature {column.name!r} is made another way now ({here.transform}) than the model's.")
        values = cases.history.events[column.name]
        if column.kind == "continuous":
            events[column.name] = (values * here.std + here.mean - column.mean) / column.std
        elif column.vocabulary:
            events[column.name] = _id_map(given, here, wanted, column)[values.long()]
        else:
            events[column.name] = values
    items = _id_map(given, schemas[0].column(ITEM_ID), wanted, schemas[1].column(ITEM_ID))
    history: Sessions = replace(cases.history, events=events)
    return Cases(history, items[cases.target].long())


def _id_map(given: Path, here: FeatureColumn, wanted: Path, there: FeatureColumn) -> Tensor:
    """The wanted id of every given id, int32 of shape [given cardinality]."""
    assert here.cardinality and here.vocabulary and there.vocabulary
    old = pl.read_parquet(given / here.vocabulary).select(ID, VALUE)
    new = pl.read_parquet(wanted / there.vocabulary).select(VALUE, pl.col(ID).alias("wanted"))
    if old.schema[VALUE] != new.schema[VALUE]:
        raise InputError(f"{here.name!r} holds {old.schema[VALUE]} values now, the model learned {new.schema[VALUE]}.")
    pairs = old.join(new, on=VALUE)
    table = np.full(here.cardinality, UNKNOWN, dtype=np.int32)
    table[:FIRST_ID] = np.arange(FIRST_ID)
    table[pairs[ID].to_numpy()] = pairs["wanted"].to_numpy()
    return torch.from_numpy(table)
