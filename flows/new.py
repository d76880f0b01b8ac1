"""`overnight new KIND NAME`: begin a part of one's own with a file that works, its test and the line of YAML that names it."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from schemas.errors import InputError, unknown
from schemas.places import FILES, KINDS, places, singular

TEMPLATES = Path(__file__).parent / "templates"
PACKAGES = {"steps": "preprocessing", "checks": "preprocessing", "encoders": "preprocessing", "datasets": "schemas"}
LINES = {  # how a part is named in the dataset's YAML, or on the command line
    "steps": "steps:\n  - {name}: {{lowest: 1}}",
    "checks": "checks:\n  - {name}: {{column: price, lowest: 0}}",
    "encoders": "features:\n  price: {{encode: {name}}}",
    "bodies": "defaults:\n  body: {{name: {name}}}",
    "objectives": "defaults:\n  objective: {{name: {name}}}",
    "losses": "defaults:\n  loss: {{name: {name}}}",
    "heads": "labels: [price]\ndefaults:\n  heads: {{next_item: {{}}, price: {{name: {name}}}}}",
    "baselines": "defaults:\n  evaluation: {{baselines: [popularity, {name}]}}",
}


@dataclass(frozen=True)
class Begun:
    """A part that was begun."""

    kind: str
    name: str
    folder: Path
    file: Path
    test: Path

    @property
    def yaml(self) -> str:
        """What names the part in a dataset's YAML; empty for those that a command names."""
        if self.kind in FILES:
            return ""
        return f"plugins: {self.folder}\n{LINES[self.kind].format(name=self.name)}"

    def lines(self) -> Iterator[str]:
        """What to do next, for people."""
        part = singular(self.kind)
        yield f"{self.file}: {'an' if part[0] in 'aeo' else 'a'} {part} that works, to be changed into yours"
        yield f"{self.test}: its test"
        if self.yaml:
            yield "\nIn the YAML of your dataset (`plugins` is seen from where that lies):\n"
            yield from (f"    {line}" for line in self.yaml.splitlines())
        yield "\nNext:\n"
        yield from (f"    {command}" for command in self.commands)

    @property
    def commands(self) -> list[str]:
        """To be typed next."""
        by_kind = {
            "datasets": f"overnight prepare --dataset {self.file} --source FOLDER",
            "presets": f"OVERNIGHT_PLUGINS={self.folder} overnight train --preset {self.name}",
        }
        listing = "steps" if self.kind in ("steps", "checks", "encoders") else "models"
        shown = by_kind.get(self.kind, f"overnight {listing} --dataset YOUR.yaml")
        return [f"python -m pytest {self.test}", f"overnight check {self.folder}", shown]

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        about = {"kind": self.kind, "name": self.name, "folder": str(self.folder)}
        return about | {"file": str(self.file), "test": str(self.test), "yaml": self.yaml, "next": self.commands}


def begin(kind: str, name: str, folder: Path) -> Begun:
    """Write a part's file and its test.

    Raises:
        InputError: for a kind that is not known, a name that cannot be or is taken, a file that is there already.
    """
    kind = _kind(kind)
    _check_name(kind, name)
    ending = "yaml" if kind in FILES else "py"
    file, test = folder / kind / f"{name}.{ending}", folder / "tests" / f"test_{name.replace('-', '_')}.py"
    for path in (file, test):
        if path.exists():
            raise InputError(f"{path} is there already: give another name, or go on with that file.")
    try:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        taken = places(_built_in(kind), [folder]).get(name)
        if taken:
            where = taken.origin + (f" ({taken.module or taken.file})" if taken.origin == "built in" else "")
            raise InputError(f"There is a {singular(kind)} {name!r} already: {where}. Give yours another name.")
        test.parent.mkdir(exist_ok=True)
        words = {"name": name, "class_name": _class_name(name), "title": _title(name)}
        for path, template in ((file, singular(kind)), (test, f"{singular(kind)}_test")):
            text = Template((TEMPLATES / f"{template}.txt").read_text()).substitute(words)
            with path.open("x") as new:
                new.write(text)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be written ({error.strerror}).") from None
    return Begun(kind, name, folder, file, test)


def _kind(given: str) -> str:
    by_name = {singular(kind): kind for kind in KINDS}
    if given not in by_name and given not in KINDS:
        raise unknown("kind", given, by_name)
    return by_name.get(given, given)


def _check_name(kind: str, name: str) -> None:
    if kind in FILES:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise InputError(f"{singular(kind)} {name!r}: a name is made of a-z, 0-9, _ and -, such as my-shop.")
        return
    usable = re.fullmatch(r"[a-z][a-z0-9_]*", name) and not keyword.iskeyword(name)
    if not usable or name == "base":
        raise InputError(
            f"{singular(kind)} {name!r}: a name is made of a-z, 0-9 and _, begins with a letter and is no word of Python "
            "nor `base`, such as drop_samples."
        )


def _built_in(kind: str) -> Path:
    return Path(__file__).parents[1] / PACKAGES.get(kind, "modeling") / kind


def _class_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split("[_-]", name))


def _title(name: str) -> str:
    words = re.sub("[_-]+", " ", name).strip()
    return words[:1].upper() + words[1:]
