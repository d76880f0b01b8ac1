"""The folder of a project: files that are written whole, all or none, and never over one that is there.

my-shop/  my-shop.yaml  prefect.yaml  plugins/README.md  README.md  compose.yaml  Dockerfile  requirements.txt
          silent-runs.yaml  .env.example  .gitignore  .dockerignore
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from schemas.errors import InputError

TEMPLATES = Path(__file__).parents[1] / "templates"
PROJECT = TEMPLATES / "project"
OURS = "overnight"
FILES = {  # template: the file it becomes
    "prefect.txt": "prefect.yaml",
    "plugins.txt": "plugins/README.md",
    "readme.txt": "README.md",
    "compose.txt": "compose.yaml",
    "dockerfile.txt": "Dockerfile",
    "dockerignore.txt": ".dockerignore",
    "gitignore.txt": ".gitignore",
    "environment.txt": ".env.example",
}


@dataclass(frozen=True)
class Written:
    """What was written, and what was there already and stays."""

    written: tuple[str, ...]
    kept: tuple[str, ...]


def contents(name: str, dataset: str, source: str) -> dict[str, str]:
    """The text of every file of a project by its path, but for the dataset's own."""
    words = {"@NAME@": name, "@SOURCE@": source, "@EVENTS@": shlex.quote(source), "@VERSION@": _version()}
    texts = {f"{name}.yaml": dataset}
    for template, path in FILES.items():
        text = (PROJECT / template).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        texts[path] = text
    texts["plugins/steps/.gitkeep"] = ""  # a folder of parts has one of their folders
    texts["silent-runs.yaml"] = (TEMPLATES / "silent-runs.yaml").read_text(encoding="utf-8")
    texts["requirements.txt"] = "\n".join(
        ["# What is installed where `overnight init` ran, for the image.", *pins(), ""]
    )
    return texts


def write(folder: Path, texts: Mapping[str, str]) -> Written:
    """Write files below a folder, which is made.

    All are written under other names first, so that a full disk leaves nothing half; each takes its name unless a file has it.

    Raises:
        InputError: when the folder or a file cannot be made.
    """
    kept = tuple(name for name in texts if (folder / name).exists() or (folder / name).is_symlink())
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".init-", dir=folder) as place:
            new = {name: text for name, text in texts.items() if name not in kept}
            for number, text in enumerate(new.values()):
                (Path(place) / str(number)).write_text(text, encoding="utf-8")
            for number, name in enumerate(new):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(Path(place) / str(number), target)  # fails where another was quicker
                written.append(name)
    except OSError as error:
        for name in written:
            (folder / name).unlink(missing_ok=True)
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}: {error.filename}). Nothing was left there."
        ) from None
    return Written(tuple(written), kept)


@cache
def pins() -> tuple[str, ...]:
    """The exact versions of what Overnight needs as it is installed here, without extras; local parts (+cpu) are cut off."""
    found: dict[str, str] = {}
    wanted = [OURS]
    while wanted:
        for requirement in _requirements(wanted.pop()):
            name = requirement.name.lower().replace("_", "-")
            if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
                continue
            try:
                found[name] = metadata.version(name).partition("+")[0]
            except metadata.PackageNotFoundError:
                continue
            wanted.append(name)
    return tuple(f"{name}=={version}" for name, version in sorted(found.items()))


def _requirements(name: str) -> Iterator[Requirement]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        try:
            yield Requirement(line)
        except InvalidRequirement:
            continue


def _version() -> str:
    try:
        return metadata.version(OURS)
    except metadata.PackageNotFoundError:  # a tree that is on the path and not installed
        return "0.3.0"
