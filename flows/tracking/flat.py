"""Nested settings and facts -> flat names and texts, flat names and numbers; nothing secret comes out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

LONGEST_NAME, LONGEST_VALUE = 250, 6000  # what MLflow takes
ODD = re.compile(r"[^\w.\- :/]")  # what MLflow refuses in a name
SECRETS = {"password", "passwd", "pwd", "secret", "token", "credential", "credentials", "auth", "authorization"}
KEYS = {"api", "access", "secret", "private", "account"}  # before `key`: a key alone may be a column
HIDDEN = "***"
URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)"
    r"(?P<user>[^/?#\s\"']*@|[^/?#\s\"':]+:(?!\d+(?:[/?#]|$))[^\s\"']*@)?"  # or a password with an unquoted / ? or #
    r"(?P<rest>[^?#\s\"']*)(?P<query>[?#][^\s\"']*)?"
)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"body": {"dim": 64}} -> {"body.dim": "64"}; lists as JSON. What is not set is left out."""
    texts = {}
    for name, value in _leaves(settings, prefix):
        if value is not None and value not in ([], {}, ()):
            texts[valid_name(name)] = as_text(value)
    return texts


def as_text(value: Any) -> str:
    """A setting as one text that MLflow takes, without secrets: a text as it is, anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(_hide(value), default=str, ensure_ascii=False)
    return without_secrets(text)[:LONGEST_VALUE]


def numbers(facts: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """{"ranks": {"median": 92}} -> {"ranks.median": 92.0}; a pair as its low and its high end; nothing but finite numbers."""
    found = {}
    for name, value in _leaves(facts, prefix):
        pair = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
        for end, number in ((".low", value[0]), (".high", value[1])) if pair else (("", value),):
            if _is_number(number):
                found[metric_name(name + end)] = float(number)
    return found


def metric_name(name: str) -> str:
    """ndcg@20 -> ndcg_at_20, as MLflow's own evaluation has it."""
    return valid_name(name.replace("@", "_at_"))


def valid_name(name: str) -> str:
    """A name that MLflow takes."""
    return ODD.sub("_", name)[:LONGEST_NAME].strip("/") or "_"


def without_secrets(text: str) -> str:
    """Addresses without user, password and query: postgresql://me:pw@host/db?a=b -> postgresql://***@host/db."""

    def hide(found: re.Match[str]) -> str:
        user = f"{HIDDEN}@" if found["user"] else ""
        query = f"?{HIDDEN}" if found["query"] and len(found["query"]) > 1 else ""
        return f"{found['scheme']}{user}{found['rest']}{query}"

    return URL.sub(hide, text)


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds what nobody is to read."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    return bool(SECRETS & set(words)) or any(last == "key" and first in KEYS for first, last in pairwise(words))


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, below in value.items():
        path = f"{prefix}.{name}" if prefix and not prefix.endswith("/") else f"{prefix}{name}"
        if isinstance(below, Mapping) and below:
            yield from _leaves(below, path)
        else:
            yield path, HIDDEN if below is not None and is_secret(str(name)) and not _is_number(below) else below


def _hide(value: Any) -> Any:
    """The same without the values of secret keys, at any depth."""
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if is_secret(str(name)) and below is not None else _hide(below)
            for name, below in value.items()
        }
    return [_hide(below) for below in value] if isinstance(value, list | tuple) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
