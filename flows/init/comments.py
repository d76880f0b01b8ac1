"""Lines of YAML with comments: behind the value where there is room, else above it."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

COLUMN, WIDTH = 35, 124  # where comments begin, and how far a line goes


def with_comment(text: str, comment: str) -> str:
    """A line and its comment behind it, or above it where both do not fit."""
    if not comment:
        return text
    behind = f"{text:<{COLUMN - 1}} # {printable(comment)}"
    indent = " " * (len(text) - len(text.lstrip()))
    return behind if len(behind) <= WIDTH else "\n".join([*comment_lines(comment, indent), text])


def comment_lines(comment: str, indent: str = "") -> list[str]:
    """A comment as lines of its own; none for none."""
    if not comment:
        return []
    start = f"{indent}# "
    text = printable(comment)
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)


def printable(text: str) -> str:
    """Without what would end a comment, or be no YAML: values are as the files hold them."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def as_yaml(value: Any) -> str:
    """A value in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=100_000)
    return text.removesuffix("\n").removesuffix("\n...").strip()
