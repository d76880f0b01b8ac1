"""The `defaults` of a dataset's YAML file, replaced in its text: every other line stays as it is, to the last byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from flows.settings.layers import GROUPS, Layer, over
from flows.settings.settings import Settings
from modeling.presets import read_preset
from schemas import places
from schemas.artifacts import replace_file
from schemas.dataset import SHIPPED
from schemas.errors import InputError
from schemas.yaml_keys import load_yaml

KEY = "defaults"
OF_A_RUN = ("threads", "devices", "seed", "capture", "compile", "start_from")  # of `training`


def defaults_of(settings: Settings, preset: str | None, given: Layer) -> Layer:
    """What a run was given, its preset and the dataset's `defaults` as one layer of `defaults`, which does for all of them.

    What belongs to a machine or a run, and not to the data, is left out.
    """
    chosen = read_preset(preset).layer if preset else {}
    layer = over(given, over(chosen, settings.dataset.defaults))
    if "training" in layer:
        layer["training"] = {key: value for key, value in layer["training"].items() if key not in OF_A_RUN}
    return {group: layer[group] for group in GROUPS if layer.get(group)}


def file_of(dataset: str) -> Path:
    """The YAML file of a dataset that people may change: one that is named by its path, or in a folder of their own.

    Raises:
        InputError: for a dataset that came with Overnight or a package, or one that cannot be written.
    """
    path = Path(dataset)
    if path.suffix not in (".yaml", ".yml"):
        place = places.places(SHIPPED, ()).get(dataset)
        if place is None or place.file is None or place.folder is None:
            shown = place.file if place and place.file else f"{dataset}.yaml"
            raise InputError(
                f"--write: {dataset} came with Overnight or a package, whose files are not changed. Copy {shown} to a folder "
                "of your own and name the copy by its path, or leave --write out and paste what is printed."
            )
        path = place.file
    path = path.resolve()
    try:
        with path.open("r+b"):
            pass
    except OSError as error:
        raise InputError(f"--write: {path} cannot be written ({error.strerror}).") from None
    return path


def block(defaults: dict[str, Any], comments: list[str]) -> str:
    """`defaults:` as YAML, a line a group, below comments."""
    lines = [f"# {comment}" for comment in comments] + [f"{KEY}:"]
    for group, given in defaults.items():
        dumped = yaml.safe_dump(given, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
        lines.append(f"  {group}: {dumped.strip().removesuffix('...').strip()}")
    return "\n".join(lines) + "\n"


def replaced(text: str, defaults: dict[str, Any], comments: list[str], where: str) -> str:
    """The text of a YAML file with other `defaults`, `comments` above them; comments of their own lines within them are kept.

    Raises:
        InputError: where that would change anything else, as with an anchor that other lines use.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    span = _span(text)
    if span is None:
        last = lines[-1] if lines else ""
        gap = ([newline] if last and not last.endswith(("\n", "\r")) else []) + [newline]
        new = [*lines, *gap, block(defaults, comments).replace("\n", newline)]
    else:
        first, end = span
        kept = [line.strip().lstrip("#").strip() for line in lines[first + 1 : end] if line.lstrip().startswith("#")]
        written = block(defaults, [*kept, *comments]).replace("\n", newline)
        new = [*lines[:first], written, *lines[end:]]
    text_after = "".join(new)
    if _read(text_after, where) != (_read(text, where) or {}) | {KEY: defaults}:
        raise InputError(f"--write: {KEY} of {where} cannot be replaced without changing more; paste what is printed.")
    return text_after


def write(path: Path, defaults: dict[str, Any], comments: list[str]) -> None:
    """Replace the `defaults` of a file, in one step.

    Raises:
        InputError: as `replaced` does.
    """
    text = replaced(path.read_bytes().decode("utf-8"), defaults, comments, str(path))

    def fill(draft: Path) -> None:
        draft.write_bytes(text.encode("utf-8"))
        shutil.copymode(path, draft)

    replace_file(path, fill)


def _span(text: str) -> tuple[int, int] | None:
    """The lines of `defaults`, from its key to where its value ends; None where the file has none."""
    root = yaml.compose(text, yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        for key, value in root.value:
            if key.value == KEY:
                return key.start_mark.line, max(_last_line(value), key.end_mark.line) + 1
    return None


def _last_line(node: yaml.Node) -> int:
    """The last line that a value has a character in: a block ends where the next token starts, behind comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        key, value = last if isinstance(last, tuple) else (last, last)
        return max(_last_line(value), key.start_mark.line)
    mark = node.end_mark
    return mark.line if mark.column or mark.line == node.start_mark.line else mark.line - 1


def _read(text: str, where: str) -> dict[str, Any] | None:
    try:
        data = load_yaml(text, where)
    except yaml.YAMLError:
        return None
    return data if isinstance(data, dict) else None
