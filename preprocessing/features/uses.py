"""What the columns of text files are read as when nobody declares it: what features take, told from the dataset alone.

price: [log1p, standardise]         -> float: a value that is no number goes to quarantine
posted: hour                        -> time
category: category                  -> text, whatever its values look like
derive: {revenue: price * quantity} -> inferred: numbers if all rows of the first night are numbers, else text
(a step or check of one's own)      -> inferred, for every column that no feature takes
(a label)                           -> float
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from preprocessing import encoders
from schemas import plugins
from schemas.column_types import ALLOWED
from schemas.dataset import Dataset, Feature
from schemas.errors import InputError

TAKEN_AS = {"numbers": "float", "times": "time", "dates": "date"}


def with_text_types(dataset: Dataset) -> Dataset:
    """The dataset with `text_types` of its tables filled in, where it does not say them itself.

    Everything below that reads a source finds in it what an undeclared column of a text file is. Names that are not known
    are left to those who know them.
    """
    named = set(_words([*(entry.options for entry in (*dataset.checks, *dataset.steps)), *_options(dataset)]))
    own = bool(dataset.own_parts())  # which columns somebody's code looks at, the YAML does not say: any
    changed: dict[str, Any] = {}
    for part in ("events", "items", "users"):
        table = getattr(dataset, part)
        if table is None:
            continue
        seen = {*named, *table.columns} if own else named
        types = {name: _type_of(name, dataset, seen) for name in table.columns if name not in ALLOWED}
        filled = {name: kind for name, kind in types.items() if kind} | table.text_types
        changed[part] = table.model_copy(update={"text_types": filled})
    return dataset.model_copy(update=changed)


def _type_of(column: str, dataset: Dataset, named: set[str]) -> str:
    """What a column is read as; empty for text."""
    taken = {
        _takes(feature, dataset.plugins)
        for name, feature in dataset.features.items()
        if (feature.column or name) == column
    }
    if any(label.column == column for label in dataset.labels):
        taken.add("numbers")
    wanted = {TAKEN_AS[kind] for kind in taken if kind in TAKEN_AS}
    if len(wanted) == 1:
        return wanted.pop()
    if taken & {"anything", "text"}:
        return ""
    return "inferred" if column in named or wanted or "" in taken else ""


def _takes(feature: Feature, folders: tuple[str, ...]) -> str:
    """What the first encoder takes; empty where there is none of that name."""
    try:
        return str(plugins.find(encoders, feature.encode[0].name, folders).takes) if feature.encode else ""
    except InputError:
        return ""


def _options(dataset: Dataset) -> Iterable[Any]:
    """Options of encoders, such as the target of target_encoding."""
    return (entry.options for feature in dataset.features.values() for entry in feature.encode)


def _words(value: Any) -> Iterator[str]:
    """All names in options, also those in expressions."""
    if isinstance(value, str):
        yield from re.findall(r"\w+", value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _words(key)
            yield from _words(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _words(inner)
