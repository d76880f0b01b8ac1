"""What the steps that join a table share."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.dataset import ItemSource, UserSource
from schemas.errors import InputError, unknown


def check_table(source: ItemSource | UserSource | None, part: str, wanted: Iterable[str], keys: set[str]) -> None:
    """Raise InputError when the dataset lacks the table, or the table a column that is wanted of it."""
    kind = part.rstrip("s")
    if source is None:
        raise InputError(f"the dataset has no {kind} table; add `{part}: {{path: ..., columns: {{...}}}}`")
    for name in wanted:
        if name not in source.columns or name in keys:
            raise unknown(f"column of the {kind} table", name, source.columns.keys() - keys)
