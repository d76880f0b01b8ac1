"""`schema.pbtxt`: sessions described as Merlin does, in TensorFlow Metadata, for Transformers4Rec and NVTabular.

    from merlin.schema.io.tensorflow_metadata import TensorflowMetadata
    schema = TensorflowMetadata.from_proto_text_file("sessions/ID").to_merlin_schema()

It says what `schema.json` says: features, their tags and ranges; and who a session is of, and its labels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from schemas.columns import ITEM_ID, SESSION_ID, TIMESTAMP, USER_ID
from schemas.features import FeatureColumn, FeatureSchema, LabelColumn

HEADER = "# Sessions of {}, described for Merlin. Ids: 0 padding, 1 null, 2 unknown, 3.. values.\n"
LAST_DAY = "# On the last day ids above a domain's max are values first seen on that day: read them as 2, unknown.\n"
NESTED = "# {} is left out: its events hold lists, and Merlin has no lists of lists.\n"
TARGETS = "# {} holds lists of targets, which Merlin's loader refuses: leave it out with schema.excluding_by_name.\n"
Message = dict[str, Any]


class Type(Enum):
    """What TensorFlow Metadata tells apart."""

    BYTES = 1
    INT = 2
    FLOAT = 3


def write(path: Path, schema: FeatureSchema, dtypes: Mapping[str, str]) -> None:
    """Write `schema.pbtxt`; `dtypes` are those of all columns of a session file: int64, string, list(int32)..."""
    nested = [column.name for column in schema.columns if dtypes[column.name].startswith("list(list(")]
    ids = [_raw(name, dtypes[name], [name, name.removesuffix("_id"), "id"]) for name in (SESSION_ID, USER_ID)]
    features = [_feature(column, schema.max_length) for column in schema.columns if column.name not in nested]
    labels = [_label(label, dtypes[label.name], schema.max_length) for label in schema.labels]
    notes = HEADER.format(schema.dataset) + (LAST_DAY if schema.split == "day" else "")
    notes += "".join(NESTED.format(name) for name in nested)
    notes += "".join(TARGETS.format(label.name) for label in schema.labels if label.per == "event")
    path.write_text(notes + "\n".join(_lines({"feature": ids + features + labels})) + "\n")


def _feature(column: FeatureColumn, max_length: int) -> Message:
    is_list = column.per == "event"
    kind, bits = _type(column.dtype)
    metadata: Message = {"dtype_item_size": bits, "is_list": is_list, "is_ragged": is_list}
    message: Message = {"name": column.name, "type": kind} | (_lengths(max_length) if is_list else {})
    if column.cardinality:
        # Features of one vocabulary have one domain: Transformers4Rec gives them one embedding table.
        domain = Path(column.vocabulary).stem if column.vocabulary else column.name
        highest = column.cardinality - 1
        message["int_domain"] = {"name": domain, "min": 0, "max": highest, "is_categorical": True}
        sizes = {"cardinality": column.cardinality, "dimension": embedding_dim(column.cardinality)}
        metadata |= {"embedding_sizes": sizes} | ({"cat_path": column.vocabulary} if column.vocabulary else {})
    elif column.transform[-1:] == ("cyclic",):  # a sine or cosine: of no other encoder does the name tell the range
        message["float_domain"] = {"name": column.name, "min": -1.0, "max": 1.0}
    return message | {"annotation": _annotation(_tags(column), metadata)}


def _tags(column: FeatureColumn) -> list[str]:
    tags = [column.kind, *(("list", "sequence") if column.per == "event" else ("session", "context"))]
    if column.name == ITEM_ID:
        tags += [ITEM_ID, "item", "id"]
    elif column.per_item:
        tags += ["item"]
    return [*tags, "time"] if column.source == TIMESTAMP else tags


def _label(label: LabelColumn, dtype: str, max_length: int) -> Message:
    if label.per == "session":
        return _raw(label.name, dtype, _label_tags(dtype))
    inner = dtype.removeprefix("list(").removesuffix(")")
    return _raw(label.name, inner, [*_label_tags(inner), "list"], max_length)


def _label_tags(dtype: str) -> list[str]:
    """A whole number may be a class, a grade or a count, which only its user knows."""
    if dtype == "boolean":
        return ["target", "binary_classification"]
    return ["target", "regression"] if dtype.startswith("float") else ["target"]


def _raw(name: str, dtype: str, tags: list[str], max_length: int | None = None) -> Message:
    """A column that is not encoded: one value, or a list of `max_length` at most."""
    kind, bits = _type(dtype)
    is_list = max_length is not None
    metadata = {"is_list": is_list, "is_ragged": is_list} | ({"dtype_item_size": bits} if bits else {})
    message: Message = {"name": name} | ({"type": kind} if kind else {})
    lengths = _lengths(max_length) if max_length is not None else {}
    return message | lengths | {"annotation": _annotation(tags, metadata)}


def _lengths(most: int) -> Message:
    return {"value_count": {"min": 1, "max": most}}


def _type(dtype: str) -> tuple[Type | None, int | None]:
    """The type and its bits; none for what TensorFlow Metadata has no type for."""
    if number := re.fullmatch(r"u?(int|float)(\d+)", dtype):
        return Type[number[1].upper()], int(number[2])
    return {"boolean": (Type.INT, 8), "string": (Type.BYTES, None)}.get(dtype, (None, None))


def embedding_dim(cardinality: int) -> int:
    """NVTabular's rule: 1.6 * cardinality ** 0.56, from 16 to 512."""
    return min(max(16, round(1.6 * cardinality**0.56)), 512)


def _annotation(tags: list[str], metadata: Message) -> Message:
    return {"tag": tags, "extra_metadata": {"[type.googleapis.com/google.protobuf.Struct]": _struct(metadata)}}


def _struct(values: Message) -> Message:
    return {"fields": [{"key": key, "value": _value(value)} for key, value in values.items()]}


def _value(value: Any) -> Message:
    match value:
        case dict():
            return {"struct_value": _struct(value)}
        case bool():
            return {"bool_value": value}
        case str():
            return {"string_value": value}
    return {"number_value": value}


def _lines(message: Message, indent: str = "") -> Iterator[str]:
    """Protobuf's text format: a list is a field that is repeated."""
    for name, values in message.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, dict):
                yield f"{indent}{name} {{"
                yield from _lines(value, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {value.name if isinstance(value, Type) else json.dumps(value, ensure_ascii=False)}"
