"""Commands on the parts that datasets and models are made of: which there are, a new one, and the laws they obey."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console import end, say, use_plugins_of
from flows.options import JsonOption, OfDatasetOption, SourceOption


def datasets(as_json: JsonOption = False) -> None:
    """The datasets that can be named: where to get them, on what terms, and where each comes from."""
    from flows.settings import listing

    listed = listing.datasets()
    for name, about in listed.items():
        say(f"{name}: {about['title']}\n    get it: {about['obtain']}\n    terms:  {about['terms']}")
        say(f"    from:   {about['origin']}")
    end(listed, as_json)


def steps(dataset: OfDatasetOption = None, as_json: JsonOption = False) -> None:
    """All steps, checks and encoders a dataset can name, with their options and where each comes from."""
    from flows.settings import listing

    use_plugins_of(dataset)
    listed = listing.for_datasets()
    for line in listing.lines(listed):
        say(line)
    end(listed, as_json)


def models(dataset: OfDatasetOption = None, as_json: JsonOption = False) -> None:
    """All presets, bodies, objectives, losses, heads and baselines, with their options and where each comes from."""
    from flows.settings import listing

    use_plugins_of(dataset)
    listed = listing.for_models()
    for line in listing.lines(listed, listing.of_all()):
        say(line)
    end(listed, as_json)


def new(
    kind: Annotated[str, typer.Argument(help="step, check, encoder, body, loss, objective, head, baseline, ...")],
    name: Annotated[str, typer.Argument(help="What it is called in the YAML: drop_samples.")],
    folder: Annotated[Path, typer.Option("--folder", help="The folder of your own parts.")] = Path("plugins"),
    as_json: JsonOption = False,
) -> None:
    """Begin a part of your own: its file, a test that passes, and the line of YAML that names it."""
    from flows.new import begin

    begun = begin(kind, name, folder)
    for line in begun.lines():
        say(line)
    end(begun.summary(), as_json)


def check(
    folder: Annotated[Path, typer.Argument(help="A folder of your own parts, such as plugins.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="A YAML file whose options and columns they are tried with.")
    ] = None,
    source: SourceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold every part of a folder to the laws of its kind and say what it breaks; code 1 if anything is broken."""
    from flows.check import check_folder

    verdict = check_folder(folder, dataset, say, source)
    end(verdict.summary(), as_json)
    if verdict.broken:
        raise typer.Exit(1)
