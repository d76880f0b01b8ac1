"""What commands say: lines for people, and one line of JSON for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from schemas.progress import Progress


def say(line: object) -> None:
    """A line of a command's result."""
    typer.echo(line)


def say_aside(line: object) -> None:
    """Where what is said does not mix with a command's result."""
    typer.echo(line, err=True)


def in_lines(say: Callable[[str], object]) -> Callable[[Progress | str], None]:
    """Takes what stages report, and says what is said in words, not how far they are."""

    def line(report: Progress | str) -> None:
        if isinstance(report, str) or report.message:
            say(str(report))

    return line


def end(summary: dict[str, Any], as_json: bool) -> None:
    """With --json, the result as the last line."""
    if as_json:
        from flows.reports.terminal import json_line

        typer.echo(json_line(summary))


def use_plugins_of(dataset: str | None) -> None:
    """A dataset's folders of own parts are found from now on."""
    if dataset:
        from schemas.dataset import read_dataset

        read_dataset(dataset)
