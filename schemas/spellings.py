"""Names of steps and encoders that are spelled in another way than they once were; both are read."""

from __future__ import annotations

from collections.abc import Container

CURRENT = {"anonymise": "anonymize", "bucketise": "bucketize", "standardise": "standardize"}  # by the older spelling
_OLDER = {current: older for older, current in CURRENT.items()}


def current(name: str) -> str:
    """The spelling that Overnight writes: "standardise" -> "standardize"; every other name as it is."""
    return CURRENT.get(name, name)


def spelled_as_in(names: Container[str], name: str) -> str:
    """The spelling of a name that is among `names`, if either is; else the name as it is."""
    spellings = (name, CURRENT.get(name), _OLDER.get(name))
    return next((spelling for spelling in spellings if spelling and spelling in names), name)
