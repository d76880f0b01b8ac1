"""The one exception that means "the user can mend this", and the messages that help them do so."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class InputError(ValueError):
    """Something a user gave is wrong: a file, a name, a value. The terminal prints it alone and exits with code 2."""


class OutsideError(InputError):
    """A last day is asked for that the data do not hold; `first` and `last` are those they do hold."""

    def __init__(self, until: object, first: object, last: object) -> None:
        super().__init__(f"until {until} is outside the data, which run from {first} to {last}.")
        self.first, self.last = first, last


class MisfitError(InputError):
    """A model that training was to start from has other settings or features than those of tonight."""


class DivergedError(InputError, FloatingPointError):
    """Numbers of a model are not finite: its settings make it diverge, a learning rate that is too high most of all."""


class AwayError(RuntimeError):
    """A source or a database does not answer, or broke off. It is nobody's mistake: to be tried again. The text is one line."""


class StageEndedError(RuntimeError):
    """The process that did a stage ended before it had a result: killed, or by a fault of native code. The text is one line."""


def reason(error: Exception) -> str:
    """Why a file or an address could not be used, for a message: of an OSError what the system says, without its number.

    [Errno 2] No such file or directory: 'a.json'  ->  No such file or directory
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return re.sub(r"\s*(\[Errno -?\d+\]|\(os error \d+\))", "", " ".join(str(error).split())).strip()


def plain(message: str) -> str:
    """What pydantic says of a fault, without the words it puts before those of a check of ours."""
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """The answer to a typo: what was asked for, the nearest known name, and all the known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"Unknown {what} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")


def parse(model: type[Model], data: Any, where: str) -> Model:
    """Validate `data` as `model`; every fault becomes one line that names the place, the value and the allowed names.

    Raises:
        InputError: with one line per fault, `where` in front.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_line(model, fault) for fault in error.errors(include_url=False)]
        raise InputError(f"{where}: " + "; ".join(lines)) from None


def _line(model: type[BaseModel], fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        fields = _fields_at(model, fault["loc"][:-1])
        return str(unknown("key", place, [".".join([*map(str, fault["loc"][:-1]), name]) for name in fields]))
    if fault["type"] == "missing":
        return f"{place} is required"
    said = plain(fault["msg"])
    return f"{place}: {said}, got {fault['input']!r}" if place else said


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The keys known at a place of a model: through fields, the entries of tuples and the values of dictionaries."""
    annotation: Any = model
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            inner = [one for one in get_args(annotation) if one is not Ellipsis]
            annotation = inner[-1] if inner else None
        if get_origin(annotation) in (Union, UnionType):
            annotation = next(one for one in get_args(annotation) if one is not NoneType)
    return list(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
