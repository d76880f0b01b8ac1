"""The words of a dataset's YAML that make sessions, in one form however they are written: what names a line of days.

Options of steps, checks and encoders that say what is the default anyway are left out, and so is what sessions do not depend
on: where the source is, what it is called, what a rule is called and how many bad rows it tolerates.
"""

from __future__ import annotations

import posixpath
from types import ModuleType
from typing import Any

import polars as pl
from pydantic import ValidationError

from preprocessing import checks, encoders, steps
from preprocessing.checks import Check
from preprocessing.plan.rules import always_checked
from preprocessing.source.canonical import as_found
from schemas import plugins
from schemas.columns import ITEM_ID
from schemas.dataset import Dataset, Step
from schemas.errors import InputError

NO_EFFECT = {"source", "database", "title", "obtain", "terms", "defaults", "profile", "plugins", "serving"}
NO_EFFECT_IN_CHECKS = {"action", "tolerate", "title"}
NO_EFFECT_IN_SESSIONS = {
    "gap": {"idle_minutes"},
    "given": {"gap_minutes"},
    "history": {"idle_minutes", "gap_minutes"},
}
PLAIN_ITEMS = {"encode": [{"name": "category"}]}  # what item_id is where it is not named


def words_of(dataset: Dataset) -> dict[str, Any]:
    """The words as JSON has them, without defaults."""
    words: dict[str, Any] = dataset.model_dump(mode="json", exclude=NO_EFFECT, exclude_defaults=True)
    words["steps"] = [_entry(steps, step, dataset) for step in dataset.steps]
    words["checks"] = [
        _entry(checks, check, dataset) for check in dataset.checks if not _is_checked_anyway(check, dataset)
    ]
    words["sessions"] = _without(words.get("sessions", {}), NO_EFFECT_IN_SESSIONS[dataset.sessions.rule])
    words["features"] = _features(dataset, words.get("features", {}))
    for name in ("events", "items", "users"):
        if name in words:
            words[name] = _table(words[name], type(getattr(dataset, name)).model_fields["path"].default)
    return {name: value for name, value in words.items() if value not in ({}, [])}


def _features(dataset: Dataset, words: dict[str, Any]) -> dict[str, Any]:
    features = {}
    for name, feature in dataset.features.items():
        entry = _without(words[name], {"column"} if feature.column == name else set())
        entry["encode"] = [_entry(encoders, encoder, dataset) for encoder in feature.encode]
        if name != ITEM_ID or entry != PLAIN_ITEMS:
            features[name] = entry
    return features


def _entry(package: ModuleType, entry: Step, dataset: Dataset) -> dict[str, Any]:
    """A step, check or encoder with the options that are not its defaults; one that cannot be read, as it is written."""
    options: dict[str, Any] = entry.options
    try:
        model = plugins.options_of(plugins.find(package, entry.name, dataset.plugins))
        options = model.model_validate(options).model_dump(mode="json", exclude_defaults=True)
    except (InputError, ValidationError):  # said, with the known ones, where it is used
        pass
    if package is checks:
        options = _without(options, NO_EFFECT_IN_CHECKS)
    return {"name": entry.name, "options": options} if options else {"name": entry.name}


def _is_checked_anyway(entry: Step, dataset: Dataset) -> bool:
    """Whether a check is one of those of every dataset, with the options that it has there."""
    try:
        check = plugins.find(checks, entry.name, dataset.plugins).model_validate(entry.options)
    except (InputError, ValidationError):
        return False
    columns = pl.Schema({as_found(name): pl.String() for name in dataset.events.columns})
    return any(
        type(other) is type(check) and _bare(other) == _bare(check) for other in always_checked(dataset, columns)
    )


def _bare(check: Check) -> dict[str, Any]:
    return check.model_dump(exclude=NO_EFFECT_IN_CHECKS)


def _table(words: dict[str, Any], usual_path: str) -> dict[str, Any]:
    """A table's words: `events/` is `events`, and what a type tolerates, or how long to wait, makes no other session."""
    table = _without(words, {"wait_days"})
    if "path" in table and "://" not in table["path"]:
        table["path"] = posixpath.normpath(table["path"])
        table = _without(table, {"path"} if table["path"] == usual_path else set())
    if "types" in table:
        table["types"] = {
            name: _without(given, {"tolerate"}) if isinstance(given, dict) else given
            for name, given in table["types"].items()
        }
    return table


def _without(words: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in words.items() if name not in names}
