"""Read Dockerfile, its ignore file and compose.yaml. Knows what ours use and refuses the rest rather than guess."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

INSTRUCTIONS = ("FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "CMD")
CONDITIONS = ("service_healthy", "service_completed_successfully")
COMPOSE_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:\?|:-)([^}]*))?\}|)")
UNITS = {"s": 1, "m": 60, "h": 3600}


class RecipeError(ValueError):
    """Something in the recipe that is wrong or not understood."""


class Step(NamedTuple):
    """One instruction of a Dockerfile, continuation lines joined."""

    line: int
    instruction: str
    arguments: str


def read_dockerfile(text: str) -> list[Step]:
    """The instructions in order.

    Raises:
        RecipeError: for an instruction, or an option of one, that is not understood.
    """
    steps: list[Step] = []
    start, pending = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        start = start if pending else number
        pending += line.strip().removesuffix("\\")
        if line.rstrip().endswith("\\"):
            continue
        instruction, _, arguments = pending.partition(" ")
        if instruction not in INSTRUCTIONS:
            raise RecipeError(
                f"Dockerfile:{start}: unknown instruction {instruction}; known: {', '.join(INSTRUCTIONS)}"
            )
        if arguments.strip().startswith("--"):
            raise RecipeError(f"Dockerfile:{start}: options of {instruction} are not understood: {arguments.strip()}")
        steps.append(Step(start, instruction, arguments.strip()))
        pending = ""
    if pending:
        raise RecipeError(f"Dockerfile:{start}: the last instruction goes on after the end of the file")
    return steps


def assignments(arguments: str) -> dict[str, str]:
    """`A=1 B="two words"` of ENV or ARG as a mapping."""
    words = shlex.split(arguments)
    if wrong := [word for word in words if "=" not in word]:
        raise RecipeError(f"expected NAME=VALUE, got {wrong[0]!r} in {arguments!r}")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def exec_form(arguments: str) -> list[str]:
    """`["overnight", "--help"]` of CMD; the shell form is refused: it would not pass signals on."""
    try:
        words = json.loads(arguments)
    except json.JSONDecodeError:
        words = None
    if not isinstance(words, list):
        raise RecipeError(f'CMD {arguments}: expected the form ["program", "argument"]')
    return [str(word) for word in words]


def context_files(folder: Path, ignore: str) -> list[Path]:
    """The files below `folder` that an image build would see, relative to it.

    As Docker does: the last pattern that matches a path or a folder above it decides. Folders that nothing can bring
    back are not walked into.
    """
    rules = [(line.startswith("!"), _pattern(line.removeprefix("!"))) for line in _lines(ignore)]
    kept = [line.removeprefix("!") for line in _lines(ignore) if line.startswith("!")]

    def sent(path: str) -> bool:
        decided = True
        above = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 2)]
        for keep, pattern in rules:
            if any(pattern.fullmatch(part) for part in above):
                decided = keep
        return decided

    def walk(below: Path) -> list[Path]:
        found: list[Path] = []
        for path in sorted(below.iterdir()):
            name = path.relative_to(folder).as_posix()
            if path.is_dir() and (sent(name) or any(part.startswith((f"{name}/", "**")) for part in kept)):
                found += walk(path)
            elif path.is_file() and sent(name):
                found.append(Path(name))
        return found

    return walk(folder)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _pattern(line: str) -> re.Pattern[str]:
    if set(line) & set("[]?\\") or line.startswith("/"):
        raise RecipeError(f"ignore pattern {line!r}: only *, ** and plain names are understood")
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in re.split(r"(\*\*/|\*\*|\*)", line)))


def read_compose(path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """The services of a compose file, `${NAME}`, `${NAME:-default}` and `${NAME:?message}` filled in.

    Raises:
        RecipeError: for a required variable that is not set, or a `$` that means something else.
    """

    def fill(match: re.Match[str]) -> str:
        dollar, name, kind, text = match.groups()
        if dollar:
            return "$"
        if not name:
            raise RecipeError(f"{path.name}: cannot read the $ in {match.string!r}")
        if kind == ":?" and not variables.get(name):
            raise RecipeError(f"{path.name}: {name} is not set: {text}")
        return variables.get(name) or (text if kind == ":-" else "")

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(part) for key, part in value.items()}
        if isinstance(value, list):
            return [filled(part) for part in value]
        return COMPOSE_VARIABLE.sub(fill, value) if isinstance(value, str) else value

    services: dict[str, Any] = filled(yaml.safe_load(path.read_text())["services"])
    return services


def start_order(services: Mapping[str, Any]) -> list[str]:
    """Names of the services, each after those it depends on."""
    order: list[str] = []

    def place(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise RecipeError(f"services wait for each other: {' -> '.join((*above, name))}")
        if name in order:
            return
        for other, how in services[name].get("depends_on", {}).items():
            if other not in services or how["condition"] not in CONDITIONS:
                raise RecipeError(f"{name} depends on {other}, {how}: expected a service and one of {CONDITIONS}")
            place(other, (*above, name))
        order.append(name)

    for name in services:
        place(name, ())
    return order


def words_of(command: str | list[str]) -> list[str]:
    """A compose command as words; `[CMD, ...]` and `[CMD-SHELL, ...]` of health checks, too."""
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if words[0] == "CMD-SHELL":
        return ["sh", "-c", *words[1:]]
    return words[1:] if words[0] == "CMD" else words


def seconds(duration: str) -> int:
    """`5m` is 300."""
    if not re.fullmatch(r"\d+[smh]", duration):
        raise RecipeError(f"duration {duration!r}: expected a whole number and s, m or h")
    return int(duration[:-1]) * UNITS[duration[-1]]
