"""Find steps, encoders, bodies, losses and baselines by file name: a new file is known as soon as it is there.

`steps/drop_repeats.py` offers its class `DropRepeats` (or a function `drop_repeats`) under the name `drop_repeats`. Its
options are the fields of a pydantic class, or the keyword-only parameters of any other class or function.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, create_model
from pydantic.fields import FieldInfo

from schemas.errors import parse, unknown
from schemas.spellings import spelled_as_in


@dataclass(frozen=True)
class Option:
    """An option as a person reads it: its type, its default as in YAML (empty when it must be given), what it means."""

    name: str
    type: str
    default: str
    description: str


@dataclass(frozen=True)
class Described:
    """One thing a package offers, in one line, and its options."""

    name: str
    summary: str
    options: tuple[Option, ...]


def names(package: ModuleType) -> list[str]:
    """The names a package offers, sorted: its modules but for `base` and those that begin with an underscore."""
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if name != "base" and not name.startswith("_"))


def find(package: ModuleType, name: str) -> Any:
    """The class or function that the module `name` of `package` is named after.

    Raises:
        InputError: when there is no such module, with the known names.
    """
    name = spelled_as_in(names(package), name)
    if name not in names(package):
        raise unknown(_singular(package), name, names(package))
    module = importlib.import_module(f"{package.__name__}.{name}")
    wanted = name.replace("_", "").lower()
    for attribute, value in vars(module).items():
        if attribute.replace("_", "").lower() == wanted and getattr(value, "__module__", "") == module.__name__:
            return value
    raise TypeError(f"{module.__file__} must define a class or function named after its file, such as {name!r}")


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


def read_options(package: ModuleType, name: str, options: dict[str, Any], where: str) -> dict[str, Any]:
    """The options given for one thing of a package, checked and converted; those left out keep their defaults.

    Raises:
        InputError: for an unknown name or option, with the known ones, or a value that does not fit.
    """
    return dict(parse(options_of(find(package, name)), options, f"{where} {name}"))


def describe_fields(model: type[BaseModel]) -> tuple[Option, ...]:
    """The fields of a settings class as options."""
    return tuple(_option(name, field) for name, field in model.model_fields.items())


def describe(package: ModuleType) -> list[Described]:
    """All that a package offers, sorted by name, for people to choose from.

    The options that a package's own base class gives all of them come last.
    """
    return [_described(name, find(package, name)) for name in names(package)]


def _singular(package: ModuleType) -> str:
    """What one thing of a package is called: step, body, loss."""
    plural = package.__name__.rpartition(".")[2]
    endings = {"ies": "y", "sses": "ss", "s": ""}
    ending = next((ending for ending in endings if plural.endswith(ending)), "")
    return plural.removesuffix(ending) + endings.get(ending, "")


def _described(name: str, thing: Any) -> Described:
    summary = (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")
    own = inspect.get_annotations(thing)
    fields = sorted(options_of(thing).model_fields.items(), key=lambda field: field[0] not in own)
    return Described(name, summary, tuple(_option(option, field) for option, field in fields))


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
