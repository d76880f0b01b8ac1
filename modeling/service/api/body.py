"""The bytes of a request -> an object of JSON, or why they are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from schemas.errors import InputError

MOST_DEEP = (
    16  # objects and lists within each other: what reads values calls itself, and types of deep lists take seconds
)


def read_object(body: bytes, example: str, parse_float: Callable[[str], Any] = float) -> dict[str, Any]:
    """The object of a body; `example` is what it may look like, for the error.

    Raises:
        InputError: where it is no JSON, no object, or holds too many lists and objects within each other.
    """
    try:
        given = json.loads(body, parse_float=parse_float, parse_constant=_no_number)
    except RecursionError:
        raise _deep() from None
    except ValueError as error:
        raise InputError(f"The body is no JSON ({error}).") from None
    _require_flat(given)
    if not isinstance(given, dict):
        raise InputError(f"The body is an object such as {example}, got {short(given)}.")
    return given


def short(value: Any) -> str:
    """A value of a body for an error, as JSON, 80 characters at most."""
    text = json.dumps(value, default=float)
    return text if len(text) <= 80 else f"{text[:77]}..."


def require_whole(text: str, where: str) -> str:
    """The text itself.

    Raises:
        InputError: where it holds half of a surrogate pair, as JSON may and no file or table of text can.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(f"{where} is no text: it holds half of a surrogate pair.") from None
    return text


def _require_flat(given: Any) -> None:
    level = [given]
    for _ in range(MOST_DEEP):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise _deep()


def _deep() -> InputError:
    return InputError(f"The body has more than {MOST_DEEP} lists and objects within each other.")


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON; leave the key out, or write null")
