"""`overnight shown`: click rates of what was recommended, by model, source and place; and the page of that.

<root>/quality/shop/quality.html     made anew by each night, and by the command
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.console import end, say
from flows.options import DatasetOption, JsonOption, RootOption
from schemas.artifacts import write_atomically
from schemas.errors import InputError

if TYPE_CHECKING:
    from flows.reports.quality import Quality
    from modeling.service.tracking.rates import Rate
    from schemas.artifacts import Artifacts
    from schemas.dataset import Dataset

FOLDER = "quality"
DAYS = 28  # that the page of a night looks back


def shown(
    dataset: DatasetOption = "demo",
    root: RootOption = Path("overnight-data"),
    days: Annotated[int, typer.Option("--days", min=1, help="Look back so many days.")] = DAYS,
    as_json: JsonOption = False,
) -> None:
    """What `overnight api` showed and what was clicked: rates by model, source and place, two models side by side; a page."""
    from flows.in_service import name_of
    from flows.reports.quality import GROUPS, sentence

    name = name_of(dataset)
    quality, page = make_page(root.expanduser(), name, name, days)
    for group, words in GROUPS.items():
        _print(words, quality.by[group])
    for pair in quality.pairs:
        say(sentence(pair))
    if quality.unplaced:
        say(
            f"Not counted: {quality.unplaced:,} events that name no answer that is here, or no item of it, and no model."
        )
    say(f"Page: {page}")
    end(quality.summary() | {"page": str(page)}, as_json)


def make_page(root: Path, name: str, title: str, days: int = DAYS) -> tuple[Quality, Path]:
    """What was shown in the last days, and where its page is now.

    Raises:
        InputError: where nothing was tracked.
    """
    from flows.reports.quality import PAGE, page_of, quality_of
    from modeling.service.tracking.store import tracked_folder
    from modeling.service.tracking.table import in_buckets

    folder = tracked_folder(root, name)
    if not folder.is_dir():
        raise InputError(
            f"Nothing was tracked for {name!r} in {root}: write `serving: {{tracking: {{}}}}` into the dataset's YAML, start "
            "`overnight api`, and send what is shown and clicked to POST /track."
        )
    since = datetime.now(UTC).date() - timedelta(days=days - 1)
    quality = quality_of(in_buckets(folder, since))
    page = root / FOLDER / name / PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, page_of(title, str(since), quality))
    return quality, page


def shown_tonight(artifacts: Artifacts, dataset: Dataset) -> str:
    """The page made anew, and what it says in a line; where that fails the line says why."""
    from flows.pages import link
    from flows.reports.quality import sentence

    try:
        quality, page = make_page(artifacts.root, dataset.name, dataset.title or dataset.name)
    except (InputError, OSError) as error:
        return f"What was shown: {error}"
    total = quality.all
    said = f"{total.clicked:,} clicks on {total.shown:,} items, {total.rate:.2%}." if total else "nothing yet."
    lines = [f"What was shown in {DAYS} days: {said}", *(sentence(pair) for pair in quality.pairs[:1])]
    return f"{' '.join(lines)} {link(page, 'All of it')}"


def _print(words: str, rates: list[Rate]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"By {words}", title_justify="left")
    table.add_column(words)
    for column in ("shown", "clicked", "users", "rate", "95 %"):
        table.add_column(column, justify="right")
    for rate in rates:
        bounds = f"{rate.low:.2%} to {rate.high:.2%}"
        table.add_row(rate.group, f"{rate.shown:,}", f"{rate.clicked:,}", f"{rate.users:,}", f"{rate.rate:.2%}", bounds)
    if rates:
        Console().print(table)
