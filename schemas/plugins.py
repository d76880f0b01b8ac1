"""Find steps, checks, encoders, bodies, losses and the like by name: those that are built in, and people's own.

The part `drop_repeats` of the steps is the class `DropRepeats` (or a function `drop_repeats`) of `steps/drop_repeats.py`. Its
options are the fields of a pydantic class, or the keyword-only parameters of any other class or function. A new file is found
as soon as it is there, in the places that `schemas.places` lists.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError, parse, unknown
from schemas.importing import digest_of, import_file, import_module, source_files
from schemas.options import Option as Option
from schemas.options import describe_fields as describe_fields
from schemas.options import in_yaml as in_yaml
from schemas.options import option_fields
from schemas.options import options_of as options_of
from schemas.places import (
    BUILT_IN,
    FILES,
    TABLE,
    VARIABLE,
    Folders,
    Place,
    kind_of,
    of_people,
    places,
    searched,
    singular,
)
from schemas.places import use as use
from schemas.spellings import spelled_as_in


class OwnPart(BaseModel):
    """A part that is not built in, as it was when it was used: where it came from, and the hash of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: str = Field(description="A path, or a package with its version and the module.")
    content: str = Field(pattern="^[0-9a-f]{16}$")


@dataclass(frozen=True)
class Described:
    """A part in one line, its options and where it comes from."""

    name: str
    summary: str
    options: tuple[Option, ...]
    origin: str = BUILT_IN


def names(package: ModuleType, folders: Folders = None) -> list[str]:
    """The names of a package's parts, people's own among them, sorted.

    Raises:
        InputError: when two parts have one name, or a folder is not there.
    """
    return sorted(places(package, folders))


def find(package: ModuleType, name: str, folders: Folders = None) -> Any:
    """The part of a package by name, a class or a function: a built-in one, or one of people's own.

    Raises:
        InputError: when there is no such part, with the names there are; when its file cannot be imported or holds none.
    """
    by_name = places(package, folders)
    name = spelled_as_in(by_name, name)
    if name not in by_name:
        raise InputError(f"{unknown(singular(kind_of(package)), name, by_name)} {_where_else(folders)}")
    place = by_name[name]
    if place.folder and place.file:
        module = import_file(place.folder, place.file)
    else:
        module = import_module(place.module, f"{place.module} of {place.origin}")
    if place.origin == BUILT_IN and place.module.endswith(f".{TABLE}"):
        return module.part(name)
    return _class_of_built_in(package, place, module) if place.origin == BUILT_IN else _class_of(package, place, module)


def find_file(folder: Path, name: str, folders: Folders = None) -> Path:
    """The YAML file of a dataset or preset.

    Raises:
        InputError: when there is none of that name, with the names there are.
    """
    known = places(folder, folders)
    if name not in known:
        also = ["or a FILE.yaml"] if folder.name == "datasets" else []
        raise unknown(singular(folder.name), name, [*known, *also])
    place = known[name]
    return place.file or _file_in_package(folder.name, place)


def own_files(wanted: Mapping[str, Iterable[str]], folders: Folders = None) -> dict[str, list[Path]]:
    """By "kind/name", the files of people's own parts among those wanted: the part's file first.

    After it come the files that it may import from its folder: they begin with an underscore.
    """
    return {part: _files_of(part.partition("/")[0], place) for part, place in _own_places(wanted, folders).items()}


def contents(wanted: Mapping[str, Iterable[str]], folders: Folders = None) -> dict[str, str]:
    """By "kind/name", a hash of the files of people's own parts among those wanted (`own_files`): sixteen hex digits."""
    return {part: digest_of(files)[:16] for part, files in own_files(wanted, folders).items()}


def own_parts(wanted: Mapping[str, Iterable[str]], folders: Folders = None) -> dict[str, OwnPart]:
    """By "kind/name", people's own parts among those wanted, for a result to record what it was made with."""
    places, hashes = _own_places(wanted, folders), contents(wanted, folders)
    return {part: OwnPart(origin=place.origin, content=hashes[part]) for part, place in places.items()}


def content(package: ModuleType, name: str, folders: Folders = None) -> str:
    """The hash of one part's files; empty for what is built in."""
    return next(iter(contents({kind_of(package): [name]}, folders).values()), "")


def read_options(package: ModuleType, name: str, options: dict[str, Any], where: str) -> dict[str, Any]:
    """The options given for a part of a package, checked and converted; those left out keep their defaults.

    Raises:
        InputError: for an unknown name or option, with those there are, or a value that does not fit.
    """
    return dict(parse(options_of(find(package, name)), options, f"{where} {name}"))


def describe(package: ModuleType, folders: Folders = None) -> list[Described]:
    """All parts of a package, sorted by name, for people to choose from.

    The options that the base class gives all of them come last.
    """
    return [_described(package, place, folders) for _, place in sorted(places(package, folders).items())]


def _described(package: ModuleType, place: Place, folders: Folders) -> Described:
    """A part; one of people's own that cannot be used is listed with the reason."""
    try:
        thing = find(package, place.name, folders)
        return Described(place.name, summary_of(thing), option_fields(thing), place.origin)
    except InputError as error:
        if place.origin == BUILT_IN:
            raise
        return Described(place.name, f"cannot be used: {error}", (), place.origin)


def summary_of(thing: Any) -> str:
    """The first paragraph of what a class says of itself, in one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def _where_else(folders: Folders) -> str:
    paths = searched(folders)
    if paths:
        return f"Searched in addition to what is built in: {', '.join(map(str, paths))}."
    return f"Your own are found in a folder that `plugins:` in the dataset's YAML or {VARIABLE} names."


@cache
def _class_of_built_in(package: ModuleType, place: Place, module: ModuleType) -> Any:
    return _class_of(package, place, module)


def _class_of(package: ModuleType, place: Place, module: ModuleType) -> Any:
    """The part of a module: the class or function of its name, a subclass of the kind's base class where there is one."""
    where, wanted = str(module.__file__), place.name.replace("_", "").lower()
    if place.module and place.module.rpartition(".")[2] != place.name:
        raise InputError(
            f"{place.origin}: the module of the entry point {place.name} must be called {place.name}, too."
        )
    defined = {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and callable(value)
    }
    names = [place.attribute] if place.attribute else [n for n in defined if n.replace("_", "").lower() == wanted]
    base = getattr(package, singular(kind_of(package)).title(), None)
    title = "".join(part.title() for part in place.name.split("_"))
    expected = f"a class {title}" + (f"({base.__name__})" if base else f" or a function {place.name}")
    if not names or names[0] not in defined:
        there = ", ".join(name for name in defined if not name.startswith("_")) or "nothing"
        raise InputError(f"{where}: expected {expected}, named after the file; it defines {there}.")
    thing = defined[names[0]]
    if base and not (isinstance(thing, type) and issubclass(thing, base)):
        raise InputError(f"{where}: {names[0]} must be a subclass of {base.__name__} (from {package.__name__}).")
    return thing


def _own_places(wanted: Mapping[str, Iterable[str]], folders: Folders) -> dict[str, Place]:
    own_places: dict[str, Place] = {}
    for kind, names_ in wanted.items():
        own = {place.name: place for place in of_people(kind, folders)}
        spelled = {spelled_as_in(own, name) for name in names_}
        own_places |= {f"{kind}/{name}": own[name] for name in sorted(spelled) if name in own}
    return own_places


def _files_of(kind: str, place: Place) -> list[Path]:
    """A part's file and those it may import."""
    file = place.file or _file_in_package(kind, place)
    helpers = [path for path in source_files(file.parent) if path.stem.startswith("_") or path.stem == "base"]
    above = source_files(place.folder) if place.folder else []
    return [file, *(path for path in [*helpers, *above] if path != file)]


def _spec_of(module: str) -> str | None:
    """The path of a module's file, or None where its package cannot be imported or does not hold it."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # somebody else's package: importing the part says what is wrong
        return None
    return spec.origin if spec and spec.has_location else None


def _file_in_package(kind: str, place: Place) -> Path:
    """The file of a package's part; modules of parts are found without importing them."""
    if kind not in FILES and (found := _spec_of(place.module)):
        return Path(found)
    module = import_module(place.module, f"{place.module} of {place.origin}")
    if kind not in FILES:
        return Path(str(module.__file__))
    for folder in getattr(module, "__path__", []):
        if (file := Path(folder) / f"{place.name}.yaml").is_file():
            return file
    raise InputError(f"{place.origin}: the package {place.module} holds no file {place.name}.yaml.")
