"""Commands that try several models: measured side by side, and searched for within a budget."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.console import end, say
from flows.options import DatasetArgument, JsonOption, with_settings

if TYPE_CHECKING:
    from flows.settings.settings import Settings


@with_settings
def compare(
    settings: "Settings",
    named: DatasetArgument = None,
    presets: Annotated[
        str,
        typer.Option(
            help="What to compare, with commas between; the rest are compared with the first. default (the settings as they "
            "are), a preset (see `overnight models`), either with settings of its own (esasrec+body.dropout=0.3), or a "
            "model that is there (models/1f2e)."
        ),
    ] = "",
    folds: Annotated[
        int | None,
        typer.Option(min=1, help="Test on so many of the newest days, each by what was there before; else 3."),
    ] = None,
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="Use only so many days before each day; else all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Several models on the same days and the same cases: one table, one page. Stopped, it goes on where it was."""
    from flows.compare import compare as run
    from flows.reports.comparison import PAGE
    from flows.reports.progress import TRAIN, TerminalProgress
    from flows.reports.terminal import print_comparison

    refuse_days(settings, "compare", "--window")
    with TerminalProgress(TRAIN) as progress:
        done = run(settings, presets, folds, window, progress)
    print_comparison(done.facts)
    say(f"Page: {done.folder / PAGE}")
    end(done.facts | {"folder": str(done.folder), "artifact": done.name}, as_json)


def refuse_days(settings: "Settings", command: str, instead: str) -> None:
    """
    Raises:
        InputError: for --days and --redo, which a command of several days has no use for.
    """
    from schemas.errors import InputError

    if settings.data.days:
        raise InputError(f"{command} takes {instead} in the place of --days, got --days {settings.data.days}.")
    if settings.data.redo:
        raise InputError(
            f"{command} takes no --redo, got {settings.data.redo}. Do days again with `overnight prepare --redo` first."
        )
