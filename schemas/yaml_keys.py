"""YAML in which no key is there twice: of two, YAML itself takes the last and says nothing of the first."""

from __future__ import annotations

from typing import Any

import yaml

from schemas.errors import InputError

MERGE = "tag:yaml.org,2002:merge"


class _OnceLoader(yaml.SafeLoader):
    """Plain values only; a mapping that repeats a key is refused. What `<<` brings may be overridden."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                raise InputError(
                    f"line {line}: the key {key.value!r} is there twice, first in line {first}; join the two or take one out."
                )
            lines[key.tag, key.value] = line
        return node


def load_yaml(text: str, where: str) -> Any:
    """What a YAML text holds.

    Raises:
        InputError: for a key that is there twice, with `where` and the line.
        yaml.YAMLError: for what is no YAML.
    """
    try:
        return yaml.load(text, _OnceLoader)  # noqa: S506  (a SafeLoader)
    except InputError as error:
        raise InputError(f"{where}, {error}") from None
