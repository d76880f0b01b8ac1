"""Read sessions encoded by one schema with a model trained with another: yesterday's model on today's sessions.

Ids go back to raw values and to the other vocabulary's ids; numbers are scaled back and scaled again. Only what the model reads
matters:

    made alike today               translated
    of the item, else              taken from the model folder's own items.parquet, by item
    no longer made                 unknown, null or 0, as the model would read it from now on
    made another way (of events)   refused: its ids or numbers mean something else

What an encoder was fit to (the boundaries of `quantile`, say) moves every night and is not compared: its options are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from modeling.config import ModelConfig
from modeling.features import read_features, stored, time_feature
from modeling.sessions import GAP, Sessions, values_of
from modeling.splits import Cases
from schemas.columns import FIRST_ID, ID, ITEM_ID, NULL, PADDING, UNKNOWN, VALUE
from schemas.errors import InputError, parse, reason
from schemas.features import FeatureColumn, FeatureSchema
from schemas.hashing import hash_value

CONFIG, SCHEMA, ITEMS = "config.json", "schema.json", "items.parquet"
# Options that say which values have an id, not what an id means.
VOCABULARY_OPTIONS = {"category": {"min_count", "max_size", "vocabulary", "start_from"}}


@dataclass(frozen=True)
class Reading:
    """How a model reads one of its features from sessions of another schema."""

    column: FeatureColumn
    today: FeatureColumn | None  # the sessions' column of that name, if they have one
    how: Literal["translated", "of the item", "unknown"]


def translate(cases: Cases, given: Path, wanted: Path) -> Cases:
    """Cases encoded as `given/schema.json` says, encoded as `wanted/schema.json` says; of features only those the model reads.

    A value that the wanted vocabulary does not hold becomes unknown, also as a target.

    Raises:
        InputError: when the model reads a feature that is made another way now, or ids of another type.
    """
    schema, model_schema = (FeatureSchema.read(folder / SCHEMA) for folder in (given, wanted))
    items_V = id_map(given, schema.items, wanted, model_schema.items)
    history = cases.history
    events: dict[str, Tensor] = {ITEM_ID: items_V[history.items.long()]}
    events |= {GAP: history.events[GAP]} if GAP in history.events else {}
    context: dict[str, Tensor] = {}
    for reading in readings(given, wanted):
        column, per_event = reading.column, reading.column.per == "event"
        values, target = (history.events, events) if per_event else (history.context, context)
        if reading.how == "translated" and reading.today:
            target[column.name] = _translated(values[column.name], given, reading.today, wanted, column)
        elif reading.how == "of the item":
            target[column.name] = _of_items(column, wanted, model_schema)[events[ITEM_ID].long()]
        else:
            target[column.name] = _nothing(column, len(history.items) if per_event else len(history))
    translated: Sessions = replace(history, events=events, context=context)
    return Cases(translated, items_V[cases.target].long())


def readings(given: Path, wanted: Path) -> list[Reading]:
    """For each side feature that the model in `wanted` reads, how it is read from the sessions in `given`.

    A folder without config.json is not a model's: all its features are read.

    Raises:
        InputError: when one is made another way now.
    """
    schema, model_schema = (FeatureSchema.read(folder / SCHEMA) for folder in (given, wanted))
    today = {column.name: column for column in schema.columns}
    return [_reading(column, today.get(column.name), wanted) for column in _read_by_model(wanted, model_schema)]


def as_read(given: Path, wanted: Path) -> list[str]:
    """What is not read from the sessions, for people: ["device: read as unknown", "brand: taken from the model's items"]."""
    sentences = {"of the item": "taken from the model's own items", "unknown": "not made any more, read as unknown"}
    return [f"{r.column.name}: {sentences[r.how]}" for r in readings(given, wanted) if r.how in sentences]


def difference(today: FeatureColumn, model_column: FeatureColumn) -> str:
    """In what a feature is made another way today than for the model; empty where a value means the same in both."""
    for what in ("kind", "source", "per", "many", "transform"):
        now, then = getattr(today, what), getattr(model_column, what)
        if now != then:
            name = {"source": "made of the column", "transform": "made by", "many": "a list"}.get(what, what)
            return f"{name} {_text(now)} now, {_text(then)} for the model"
    if (today.vocabulary is None) != (model_column.vocabulary is None):
        return "with a vocabulary in one of them only"
    if options := _other_options(today, model_column):
        return options
    if today.kind == "categorical" and not today.vocabulary and today.cardinality != model_column.cardinality:
        return f"{today.cardinality} ids now, {model_column.cardinality} for the model"
    return ""


def _reading(column: FeatureColumn, today: FeatureColumn | None, wanted: Path) -> Reading:
    different = difference(today, column) if today else "not made any more"
    if not different:
        return Reading(column, today, "translated")
    of_items = pl.read_parquet_schema(wanted / ITEMS) if (wanted / ITEMS).is_file() else {}
    if column.per_item and column.per == "event" and column.name in of_items:
        return Reading(column, today, "of the item")
    if today is None:
        return Reading(column, None, "unknown")
    raise InputError(f"it reads the feature {column.name!r}, which is made another way now ({different})")


def _read_by_model(folder: Path, schema: FeatureSchema) -> tuple[FeatureColumn, ...]:
    if not (folder / CONFIG).is_file():
        return schema.side_features
    try:
        about = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / CONFIG} cannot be read: {reason(error)}") from None
    config = parse(ModelConfig, about.get("model"), str(folder / CONFIG))
    time = time_feature(config.inputs, schema)
    read = read_features(config, schema)
    return read if time is None or time in read else (*read, time)


def _other_options(today: FeatureColumn, model_column: FeatureColumn) -> str:
    """The options that make an id or a number mean something else; older schemas do not say them."""
    now, then = _options(today), _options(model_column)
    if now is not None and then is not None:
        for (name, some), (_, other) in zip(now, then, strict=True):
            for option in sorted(some.keys() | other.keys()):
                if some.get(option) != other.get(option):
                    return f"{name}: {option} {_text(some.get(option))} now, {_text(other.get(option))} for the model"
        return ""
    for name, options in now or then or []:
        if options and not (name == "category" and options == {"unknown_buckets": 1}):
            return f"with which options of {name} is not recorded in the older schema.json"
    return ""


def _options(column: FeatureColumn) -> list[tuple[str, dict[str, Any]]] | None:
    if column.encoders is None:
        return None
    left_out = {encoder.name: VOCABULARY_OPTIONS.get(encoder.name, set()) for encoder in column.encoders}
    return [
        (encoder.name, {name: value for name, value in encoder.options.items() if name not in left_out[encoder.name]})
        for encoder in column.encoders
    ]


def _translated(values: Tensor, given: Path, today: FeatureColumn, wanted: Path, model_column: FeatureColumn) -> Tensor:
    """Where there are many values, a 0 is none and stays."""
    if model_column.vocabulary:
        return id_map(given, today, wanted, model_column)[values.long()]
    if model_column.kind == "categorical":
        return values
    scaled = (values * today.std + today.mean - model_column.mean) / model_column.std
    return scaled.masked_fill(values == 0, 0.0) if model_column.many else scaled


def _of_items(column: FeatureColumn, folder: Path, schema: FeatureSchema) -> Tensor:
    """The value of each item id in the folder's item table, [V] or [V, W]; unknown for ids that are no items."""
    items = pl.read_parquet(folder / ITEMS, columns=[ID, column.name], glob=False)
    value_N = values_of(stored(items[column.name], column), column)
    assert schema.items.cardinality
    value_V = _nothing(column, schema.items.cardinality)
    if column.many:
        value_V = value_V.expand(-1, value_N.shape[1]).clone()
    value_V[torch.from_numpy(items[ID].to_numpy(writable=True)).long()] = value_N
    return value_V


def _nothing(column: FeatureColumn, count: int) -> Tensor:
    """What a model reads where nothing is given: no values of many, unknown, null of a session, 0 of a number."""
    if column.many:
        return torch.full((count, 1), PADDING, dtype=torch.int32 if column.dtype == "int32" else torch.float32)
    if column.kind == "continuous":
        return torch.zeros(count)
    return torch.full((count,), UNKNOWN if column.per == "event" else NULL, dtype=torch.int32)


def id_map(given: Path, today: FeatureColumn, wanted: Path, model_column: FeatureColumn) -> Tensor:
    """The wanted id of every given id, int32 of shape [given cardinality]."""
    assert today.cardinality and today.vocabulary and model_column.vocabulary
    old, new = (_vocabulary(folder, column) for folder, column in ((given, today), (wanted, model_column)))
    if old.schema[VALUE] != new.schema[VALUE]:
        types = f"{old.schema[VALUE]} values now, {new.schema[VALUE]} values for the model"
        raise InputError(f"the feature {today.name!r} holds {types}")
    first_id, first = _first_id(today, old), _first_id(model_column, new)
    if first_id != first:
        unknown_ids = f"{first_id - UNKNOWN} ids for unknown values now, {first - UNKNOWN} for the model"
        raise InputError(f"the feature {today.name!r} has {unknown_ids}")
    pairs = old.filter(pl.col(ID) < today.cardinality).join(new.rename({ID: "wanted"}), on=VALUE, how="left")
    shared = pairs.drop_nulls("wanted")
    table = np.full(today.cardinality, UNKNOWN, dtype=np.int32)
    table[:first_id] = np.arange(first_id)
    table[shared[ID].to_numpy()] = shared["wanted"].to_numpy()
    if first_id > FIRST_ID:
        for unknown_id, value in pairs.filter(pl.col("wanted").is_null()).select(ID, VALUE).iter_rows():
            table[unknown_id] = UNKNOWN + hash_value(value) % (first_id - UNKNOWN)
    return torch.from_numpy(table)


def _vocabulary(folder: Path, column: FeatureColumn) -> pl.DataFrame:
    """`id` and `value`; integers of any width as Int64."""
    assert column.vocabulary
    table = read_table(folder / column.vocabulary).select(ID, VALUE).drop_nulls(ID)
    narrow = table.schema[VALUE].is_integer() and table.schema[VALUE] not in (pl.UInt64, pl.Int128)
    return table.with_columns(pl.col(VALUE).cast(pl.Int64)) if narrow else table


def read_table(path: Path) -> pl.DataFrame:
    """A table of a model folder.

    Raises:
        InputError: when it is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"there is no {path}")
    try:
        return pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def _first_id(column: FeatureColumn, vocabulary: pl.DataFrame) -> int:
    """The first id of a value: the ids before it are for null and for unknown values."""
    if column.name == ITEM_ID:
        return FIRST_ID  # preparation refuses buckets of items
    for encoder in column.encoders or ():
        if encoder.name == "category" and "unknown_buckets" in encoder.options:
            return UNKNOWN + int(encoder.options["unknown_buckets"])
    lowest = vocabulary[ID].min()
    return FIRST_ID if lowest is None else int(lowest)  # type: ignore[arg-type]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def raw_items(items: pl.DataFrame, ids: Tensor) -> list[Any]:
    """Raw item ids of the encoded ones of an item table (`id`, `value`); None for those that it does not hold."""
    return raw_column(items, ids).to_list()


def raw_column(items: pl.DataFrame, ids: Tensor) -> pl.Series:
    """As `raw_items`, as a column of the type that raw ids have."""
    wanted = pl.DataFrame({ID: ids.cpu().numpy()}, schema={ID: items.schema[ID]})
    return wanted.join(items.select(ID, VALUE), on=ID, how="left", maintain_order="left")[VALUE]


def raw_lists(items: pl.DataFrame, ids_NK: Tensor) -> list[list[Any]]:
    """N lists of raw item ids from rows of encoded ones, whose zeros at the end are left out; by one look-up for all."""
    kept_NK = ids_NK >= FIRST_ID
    raw = iter(raw_items(items, ids_NK[kept_NK]))
    return [list(islice(raw, count)) for count in kept_NK.sum(1).tolist()]
