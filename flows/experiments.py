"""Commands that try several models: measured side by side, and searched for within a budget."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from flows.console import end, in_lines, say, say_aside
from flows.options import DatasetArgument, JsonOption, with_settings
from schemas.errors import InputError

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
        typer.Option(
            min=1,
            help="Test on so many of the newest days, each by what was there before; else 3.",
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="Use only so many days before each day; else all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Several models on the same days and the same cases: one table, one page. Stopped, it goes on where it was."""
    from flows.compare import compare as run
    from flows.night_lock import alone
    from flows.reports.comparison_page import PAGE
    from flows.reports.progress import TRAIN, TerminalProgress
    from flows.reports.terminal import print_comparison

    with alone(settings, "comparison", say_aside), TerminalProgress(TRAIN) as progress:
        done = run(settings, presets, folds, window, progress)
    print_comparison(done.facts)
    say(f"Page: {done.folder / PAGE}")
    end(done.facts | {"folder": str(done.folder), "artifact": done.name}, as_json)


@with_settings
def tune(
    settings: "Settings",
    named: DatasetArgument = None,
    budget: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="How long to search, earlier runs of the same search counted: 90s, 30m, 1h30m."
        ),
    ] = "30m",
    trials: Annotated[
        int | None, typer.Option(min=1, help="End after so many trials, too, earlier runs of the same search counted.")
    ] = None,
    presets: Annotated[
        str | None,
        typer.Option(help="Presets to try, with commas between; else all (none, where --preset is given). none: none."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write what was found into the dataset's YAML file as its `defaults`.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Search for settings that suit a dataset, by validation, within a budget. Run it again and it goes on."""
    began = time.monotonic()
    from flows.reports.progress import TRAIN, TerminalProgress
    from flows.reports.terminal import print_trials
    from flows.reports.tuning import comment_of, summary_of
    from flows.settings.defaults import block, file_of
    from flows.settings.defaults import write as write_defaults
    from flows.tune import tune as run

    seconds, tried = read_budget(budget), _presets(settings, presets)
    if write and settings.data.changes:
        changed = ", ".join(f"dataset.{key}" for key in settings.data.changes)
        raise InputError(
            f"--write with --set {changed}: write these into the YAML first, so that it says what was tried."
        )
    file = file_of(settings.data.dataset) if write else None
    with TerminalProgress(TRAIN) as progress:
        shown = progress if progress.console.is_terminal else in_lines(progress)
        done = run(settings, seconds, tried, shown, began=began, most=trials)
    print_trials(done.trials)
    summary = summary_of(done.trials)
    say(summary)
    if done.defaults:
        comments = comment_of(done.trials, budget)
        if file:
            write_defaults(file, done.defaults, comments)
            say(f"Written into {file}.")
        else:
            say(f"For the dataset's YAML:\n\n{block(done.defaults, comments)}")
    elif file:
        say(f"{file} stays as it is.")
    rows = [vars(trial) for trial in done.trials if not trial.ignored]
    end({"summary": summary, "defaults": done.defaults, "trials": rows, "folder": str(done.folder)}, as_json)


def read_budget(text: str) -> float:
    """`90s`, `30m`, `1h30m` in seconds.

    Raises:
        InputError: for anything else, and for no time at all.
    """
    import re

    parts = re.fullmatch(
        r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?", text.strip().lower()
    )
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True)) if parts else 0
    )
    if not seconds:
        raise InputError(f"--budget {text!r}: expected a time above zero with its unit, such as 90s, 30m or 1h30m.")
    return seconds


def _presets(settings: "Settings", given: str | None) -> tuple[str, ...]:
    """The presets to try."""
    from modeling.presets import known_presets
    from schemas.errors import unknown

    known = known_presets()
    if given is None:
        return () if settings.preset else tuple(known)
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if names == ("none",):
        return ()
    for name in names:
        if name not in known:
            raise unknown("preset in --presets", name, [*known, "none"])
    if not names:
        raise InputError(f"--presets names none: give some of {', '.join(known)}, or none.")
    return names
