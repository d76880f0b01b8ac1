"""Where parts are: those that are built in, those of folders that people name, and those of installed packages.

    built in            preprocessing/steps/NAME.py, modeling/bodies/NAME.py, ...; datasets and presets are NAME.yaml; those
                        that are alike are rows of one table, NAME in TABLE of modeling/bodies/_table.py
    a person's folder   FOLDER/steps/NAME.py, FOLDER/bodies/NAME.py, FOLDER/datasets/NAME.yaml, ...
    a package           its entry point NAME = package.NAME of the group overnight.steps, overnight.bodies, ...; of
                        overnight.datasets and overnight.presets NAME = package, whose folder holds NAME.yaml

Folders are searched when the dataset's YAML (`plugins:`) or the variable OVERNIGHT_PLUGINS names them, never because they lie
near some data. Two parts of one kind and name are refused.
"""

from __future__ import annotations

import ast
import os
import pkgutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from schemas.errors import InputError
from schemas.spellings import current

VARIABLE = "OVERNIGHT_PLUGINS"
BUILT_IN = "built in"
TABLE = "_table"  # the module whose TABLE has parts for rows
FILES = ("datasets", "presets")  # kinds that are YAML; all others are Python
SETTLED = 2_000_000_000  # nanoseconds after which a disk gives what comes into a folder a later time
KINDS = ("steps", "checks", "encoders", "bodies", "objectives", "losses", "heads", "baselines", *FILES)
Folders = Iterable[str | Path] | None

_of_dataset: list[tuple[str | Path, ...]] = [()]  # see `use`


@dataclass(frozen=True)
class Place:
    """Where a part is: a `file`, below the `folder` that was named, or a `module`, and perhaps the class or row in it."""

    name: str
    origin: str
    """For people: built in, a path, or a package with its version."""
    file: Path | None = None
    folder: Path | None = None
    module: str = ""
    attribute: str = ""


def use(folders: Iterable[str | Path]) -> None:
    """Search these folders, those of the dataset read last, where no others are given, in this process.

    Models are put together without a dataset at hand; whoever has one gives its `plugins` instead.
    """
    _of_dataset[0] = tuple(folders)


def searched(folders: Folders = None) -> tuple[Path, ...]:
    """The folders of people's own parts: those given, else those in use; then those of OVERNIGHT_PLUGINS. Each once.

    Raises:
        InputError: when one is not there or holds no folder of a kind.
    """
    named = [*(_of_dataset[0] if folders is None else folders), *of_environment()]
    paths = tuple(dict.fromkeys(Path(path).expanduser().resolve() for path in named))
    for path in paths:
        _check_folder(path)
    return paths


def of_environment() -> list[Path]:
    """The folders that OVERNIGHT_PLUGINS names."""
    return [Path(path).expanduser().resolve() for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]


def places(package: ModuleType | Path, folders: Folders = None) -> dict[str, Place]:
    """By name, the parts of a kind and where they are; a package need not be imported, its folder does as well."""
    own: tuple[str, ...] = (str(package),) if isinstance(package, Path) else tuple(package.__path__)
    if isinstance(package, Path):
        kind, prefix = package.name, ""
    else:
        kind, prefix = kind_of(package), f"{package.__name__}."
    changed = tuple(_changed(path) for path in own)
    if max(changed, default=0) > time.time_ns() - SETTLED:  # a file that comes now may leave no later time
        built_in = _built_in.__wrapped__(kind, prefix, own, changed)
    else:
        built_in = _built_in(kind, prefix, own, changed)
    people = [*of_people(kind, folders)]
    return _each_once(kind, [*built_in.values(), *people]) if people else dict(built_in)


def _changed(folder: str) -> int:
    """When names in a folder last changed; 0 where it cannot be asked."""
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116  (for every part that is looked for)
    except OSError:
        return 0


@cache
def _built_in(kind: str, prefix: str, own: tuple[str, ...], changed: tuple[int, ...]) -> dict[str, Place]:
    """The parts in a package's folders `own`, whose names of files last changed then."""
    if kind in FILES:
        found = [Place(file.stem, BUILT_IN, file) for path in own for file in sorted(Path(path).glob("*.yaml"))]
    else:
        modules = (module.name for module in pkgutil.iter_modules(own))
        found = [Place(name, BUILT_IN, module=prefix + name) for name in modules if _is_part(name)]
        rows = (name for path in own for name in rows_of(Path(path)))
        found += [Place(name, BUILT_IN, module=prefix + TABLE, attribute=name) for name in rows]
    return _each_once(kind, found)


@cache
def rows_of(folder: Path) -> dict[str, str]:
    """By name, the source of each row of a built-in package's table: read, not imported. Empty where there is none."""
    file = folder / f"{TABLE}.py"
    if not file.is_file():
        return {}
    text = file.read_text()
    tables = [
        node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
        if "TABLE" in {target.id for target in getattr(node, "targets", [node]) if isinstance(target, ast.Name)}
    ]
    return {
        str(ast.literal_eval(key)): ast.get_source_segment(text, row) or ""
        for table in tables
        for key, row in zip(table.keys, table.values, strict=True)
        if key
    }


def singular(kind: str) -> str:
    """What one part of a kind is called: step, body, loss."""
    endings = {"ies": "y", "sses": "ss", "s": ""}
    ending = next((ending for ending in endings if kind.endswith(ending)), "")
    return kind.removesuffix(ending) + endings.get(ending, "")


def kind_of(package: ModuleType) -> str:
    """The kind of a package's parts, which is its name: steps, bodies."""
    return package.__name__.rpartition(".")[2]


def _is_part(name: str) -> bool:
    """Whether a file of that name is a part; `base` and names with an underscore in front are for parts to import."""
    return name != "base" and not name.startswith(("_", "."))


def _check_folder(folder: Path) -> None:
    where = f"{VARIABLE if folder in of_environment() else 'plugins'}: {folder}"
    if not folder.is_dir():
        help = (
            f"Set {VARIABLE} to where it is, or unset it."
            if where.startswith(VARIABLE)
            else "A YAML's `plugins` are seen from the YAML's own folder: copy the folder with the YAML, write where it is, or "
            "leave `plugins` out where no part of yours is used."
        )
        raise InputError(f"{where} is no folder on this machine ({socket.gethostname()}). {help}")
    inside = {path.name for path in folder.iterdir() if path.is_dir()}
    for kind in KINDS:
        if singular(kind) in inside:
            raise InputError(f"{where} has a folder {singular(kind)!r}, which nobody searches: call it {kind!r}.")
    if not inside & {*KINDS}:
        raise InputError(f"{where} holds none of the folders that are searched: {', '.join(KINDS)}.")


def of_people(kind: str, folders: Folders = None) -> Iterator[Place]:
    """The parts of a kind that are not built in."""
    ending = ".yaml" if kind in FILES else ".py"
    for folder in searched(folders):
        for file in sorted((folder / kind).glob(f"*{ending}")):
            if _is_part(file.stem):
                if not file.stem.isidentifier() and kind not in FILES:
                    raise InputError(f"{file}: a name is made of letters, digits and underscores; rename the file.")
                yield Place(file.stem, str(file), file, folder)
    for point, package in _entry_points(f"overnight.{kind}", tuple(sys.path)):
        yield Place(point.name, f"{package}, {point.value}", module=point.module, attribute=point.attr or "")


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> list[tuple[metadata.EntryPoint, str]]:
    """Those of installed packages on this path, once a process, each with its package and version."""
    points = _all_entry_points(path).select(group=group)
    return [(point, f"{point.dist.name} {point.dist.version}" if point.dist else "a package") for point in points]


@cache
def _all_entry_points(path: tuple[str, ...]) -> Any:  # the standard library calls its type otherwise from 3.12 on
    """Of all groups, unless no installed package has parts of Overnight: to read what all of them have is what takes time."""
    texts = (package.read_text("entry_points.txt") or "" for package in metadata.distributions())
    return metadata.entry_points() if any("[overnight." in text for text in texts) else metadata.EntryPoints()


def _each_once(kind: str, found: Iterable[Place]) -> dict[str, Place]:
    by_name: dict[str, Place] = {}
    for place in found:
        first = by_name.setdefault(current(place.name), place)  # two spellings of one name are one name
        if first is not place:
            raise InputError(
                f"Two {kind} are called {place.name!r}: {_at(first)} and {_at(place)}. Rename yours, file and class."
            )
    return {place.name: place for place in by_name.values()}


def _at(place: Place) -> str:
    return f"one that is built in ({place.module or place.file})" if place.origin == BUILT_IN else place.origin
