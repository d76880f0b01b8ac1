"""A folder that holds several tables: which of them are the events, and which describes the items.

shop/  events/2024-05-01.parquet ...  items.parquet        events: events, items: items.parquet
shop/  clicks-01.csv clicks-02.csv  products.csv           events: clicks-*.csv, items: products.csv
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import polars as pl

from flows.init.comments import as_yaml
from flows.init.evidence import is_group
from flows.init.look import Look, look
from flows.init.roles import Roles, guess_roles
from flows.init.traits import Traits, traits_of
from flows.init.words import name_score
from preprocessing.source.files import format_of
from preprocessing.source.listing import SourceFile, is_remote, list_files
from schemas.columns import ITEM_ID
from schemas.errors import InputError

MOST = 8  # tables that are looked at
DESCRIBES = 0.5  # share of the items of events that a table of items holds
FEATURES = ("category", "brand", "price")  # taken of a table of items


@dataclass(frozen=True)
class Items:
    """A table of items, and what of it is used: its column by our name."""

    look: Look
    columns: dict[str, str]
    types: dict[str, str]

    @property
    def features(self) -> list[str]:
        """What is joined to events."""
        return [ours for ours in self.columns if ours != ITEM_ID]


@dataclass(frozen=True)
class Tables:
    """The table of events with the roles of its columns, the table of items if there is one, and what is not used: a table, or
    columns of that of items.
    """

    events: Look
    roles: Roles
    items: Items | None
    unused: tuple[str, ...] = ()


def find_tables(source: str, path: str, given: Mapping[str, str]) -> Tables:
    """The events at a path, of several tables in a folder those that can be events and have most rows.

    Raises:
        InputError: when there are none.
    """
    paths = _tables(source) if path == "." and not is_remote(source) else []
    if len(paths) < 2:
        seen = look(source, path if path == "." else glob.escape(path))
        return Tables(seen, _roles(seen, given), None)
    looks, found, refused = [], [], []
    for table in paths[:MOST]:
        try:
            looks.append(seen := look(source, table))
            found.append((seen.rows.height, seen, _roles(seen, given)))
        except InputError as error:
            refused.append(f"{table}: {error}")
    if not found:
        raise InputError(
            f"--from {source} holds {len(paths)} tables, none of which can be events. " + " ".join(refused)
        )
    _, events, roles = max(found, key=lambda table: table[0])
    rest = [table for table in looks if table is not events]
    items = _items_of(roles, rest)
    unused = [_unused_of(table, items) for table in rest] + [f"{path} (not looked at)" for path in paths[MOST:]]
    return Tables(events, roles, items, tuple(filter(None, unused)))


def _unused_of(table: Look, items: Items | None) -> str:
    """A table that is not read, or what is not read of that of items: its name and columns; empty where all is."""
    used = items.columns.values() if items and table is items.look else ()
    columns = [name for name in table.rows.columns if name not in used]
    return f"{table.path} ({', '.join(columns)})" if columns else ""


def _roles(seen: Look, given: Mapping[str, str]) -> Roles:
    day_first = seen.options.separator == ";" or not seen.is_text
    return guess_roles(traits_of(seen.rows, day_first), given)


def _tables(source: str) -> list[str]:
    """Paths of the tables in a folder, the largest first."""
    groups: dict[tuple[str, str, bool], list[SourceFile]] = {}
    for file in list_files(source, "."):
        parts = PurePosixPath(file.path).parts
        if format_of(file) and not any(part[:1] in "._" for part in parts):
            name, inside = (parts[0], True) if len(parts) > 1 and "=" not in parts[0] else (parts[-1], False)
            ending = "" if inside else "".join(PurePosixPath(name).suffixes[-2:])
            groups.setdefault((re.sub(r"[\d_.-]+", "", name.removesuffix(ending)), ending, inside), []).append(file)
    order = sorted(groups.items(), key=lambda group: -sum(file.size for file in group[1]))
    if len(order) == 1:
        return ["."]
    return [_path(files, ending, inside) for (_, ending, inside), files in order]


def _path(files: list[SourceFile], ending: str, inside: bool) -> str:
    if inside:
        roots = sorted({PurePosixPath(file.path).parts[0] for file in files})
        return glob.escape(roots[0]) if len(roots) == 1 else f"{glob.escape(_start_of(roots))}*/**"
    names = sorted(file.path for file in files)
    return glob.escape(names[0]) if len(names) == 1 else f"{glob.escape(_start_of(names))}*{ending}"


def _start_of(names: list[str]) -> str:
    """The letters with which all names begin."""
    first, last = min(names), max(names)
    same = next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return first[:same]


def _items_of(roles: Roles, looks: list[Look]) -> Items | None:
    """The first table with one row an item that holds most of the items of the events."""
    wanted = roles[ITEM_ID]
    for seen in looks:
        traits = traits_of(seen.rows, day_first=True)
        keys = [found for found in traits.values() if found.unique == len(found.values) and _alike(found, wanted)]
        keys = [found for found in keys if _share_of(wanted, found) >= DESCRIBES]
        if keys:
            key = max(keys, key=lambda found: name_score(found.name, "item"))
            used = {ITEM_ID: key}
            for ours in FEATURES:
                if ours not in roles and (best := _named(ours, traits, key)):
                    used[ours] = best
            if len(used) > 1:
                types = {ours: "float" for ours in used if ours == "price"}
                return Items(seen, {ours: found.name for ours, found in used.items()}, types)
    return None


def _named(ours: str, traits: Mapping[str, Traits], key: Traits) -> Traits | None:
    kinds = ("number", "integer") if ours == "price" else ("text", "integer")
    fitting = [
        found for found in traits.values() if found is not key and found.kind in kinds and name_score(found.name, ours)
    ]
    fitting = [found for found in fitting if ours == "price" or is_group(found)]
    return max(fitting, key=lambda found: name_score(found.name, ours), default=None)


def _alike(one: Traits, other: Traits) -> bool:
    return one.stored.is_numeric() == other.stored.is_numeric() and one.kind in ("integer", "text")


def _share_of(wanted: Traits, key: Traits) -> float:
    items = wanted.values.drop_nulls().unique().cast(pl.String)
    return float(items.is_in(key.values.drop_nulls().cast(pl.String).implode()).sum()) / max(1, len(items))


def lines_of(items: Items) -> list[str]:
    """The section of a dataset's YAML."""
    columns = ", ".join(f"{ours}: {as_yaml(name)}" for ours, name in items.columns.items())
    lines = ["items:", f"  path: {as_yaml(items.look.path)}"]
    for option in ("format", "separator", "header", "encoding"):
        if option in items.look.notes:
            lines.append(f"  {option}: {as_yaml(getattr(items.look.options, option))}")
    lines.append(f"  columns: {{{columns}}}")
    if items.types:
        lines.append(f"  types: {as_yaml(items.types)}")
    return lines
