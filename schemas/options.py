"""What can be chosen about a class or function, typed, and how a person reads it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, create_model
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Option:
    """An option as a person reads it: its type, its default as in YAML (empty when it must be given), what it means."""

    name: str
    type: str
    default: str
    description: str


def options_of(thing: Any) -> type[BaseModel]:
    """What can be chosen about a class or function, typed; keyword-only parameters may be annotated with pydantic's Field."""
    if isinstance(thing, type) and issubclass(thing, BaseModel):
        return thing
    parameters = inspect.signature(thing, eval_str=True).parameters.values()
    fields: dict[str, Any] = {
        one.name: (one.annotation, ... if one.default is one.empty else one.default)
        for one in parameters
        if one.kind is one.KEYWORD_ONLY
    }
    return create_model(thing.__name__, __config__=ConfigDict(extra="forbid"), **fields)


def describe_fields(model: type[BaseModel]) -> tuple[Option, ...]:
    """The fields of a settings class as options."""
    return tuple(_option(name, field) for name, field in model.model_fields.items())


def option_fields(thing: Any) -> tuple[Option, ...]:
    """The options of a class or function; those that its base class gives come last."""
    own = inspect.get_annotations(thing)
    fields = sorted(options_of(thing).model_fields.items(), key=lambda field: field[0] not in own)
    return tuple(_option(name, field) for name, field in fields)


def _option(name: str, field: FieldInfo) -> Option:
    default = "" if field.is_required() else in_yaml(field.get_default(call_default_factory=True))
    return Option(name, _in_words(field.annotation), default, field.description or "")


def in_yaml(value: Any) -> str:
    """A value as a person would write it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(in_yaml, value))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if value != "" else "''"


def _in_words(annotation: Any) -> str:
    """`tuple[str, ...] | None` is "list of text"; `Literal["first", "last"]` is "first | last"."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _in_words(parts[0])
    if origin is Literal:
        return " | ".join(map(in_yaml, parts))
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(_in_words(part) for part in parts if part is not NoneType))
    if origin in (tuple, list):
        return f"list of {_in_words(parts[0])}"
    if origin is dict:
        return f"{_in_words(parts[0])}: {_in_words(parts[1])}"
    words: dict[Any, str] = {str: "text", int: "integer", float: "number", bool: "true | false"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))
