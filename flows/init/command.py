"""`overnight init NAME --from FILE`."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from flows.console import end, say
from flows.options import JsonOption
from schemas.errors import InputError


def init(
    name: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder to make; its name is the dataset's.")],
    source: Annotated[str, typer.Option("--from", metavar="PATH", help="Your events: a file, or a folder of them.")],
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="OURS=YOURS", help="What is not to be guessed: timestamp=Datum. Repeat."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at a file of events and write a folder to run nights in; no file that is there is changed."""
    summary = begin(Path(name).expanduser(), source, read_given(column or []), say)
    end(summary, as_json)


def begin(folder: Path, source: str, given: dict[str, str], say: Callable[[str], object]) -> dict[str, Any]:
    """Look, guess, and write the folder; what was done, for `--json`.

    Raises:
        InputError: for files that cannot be read, columns that cannot be guessed, a folder that cannot be written.
    """
    from flows.init.describe import describe
    from flows.init.folder import contents, write
    from flows.init.look import place_of
    from flows.init.shape import shape_of
    from flows.init.tables import find_tables
    from flows.init.trial import try_dataset

    dataset = dataset_name(folder)
    tables = find_tables(*place_of(source), given)
    seen, roles = tables.events, tables.roles
    shape = shape_of(seen, roles)
    text = describe(dataset, tables, shape)
    with TemporaryDirectory(prefix="overnight-init-") as place:
        (Path(place) / "plugins" / "steps").mkdir(parents=True)
        file = Path(place) / f"{dataset}.yaml"
        file.write_text(text, encoding="utf-8")
        try_dataset(file)
    done = write(folder, contents(dataset, text, seen.source))
    guesses = {ours: roles.guesses[ours].column for ours in shape.mapped}
    guesses |= {f"items.{ours}": name for ours, name in (tables.items.columns if tables.items else {}).items()}
    left_out = (*seen.left_out, *((text, "not used") for text in tables.unused))
    for line in _lines(folder, dataset, seen.extent, guesses, shape.warnings, done.written, done.kept, left_out):
        say(line)
    about = {"folder": str(folder), "dataset": f"{dataset}.yaml", "columns": guesses, "warnings": shape.warnings}
    about |= {"left_out": [f"{path} ({why})" for path, why in left_out]}
    return about | {"written": list(done.written), "kept": list(done.kept)}


def dataset_name(folder: Path) -> str:
    """The name of a dataset for a folder's: small letters, digits, - and _.

    Raises:
        InputError: when nothing of the folder's name can stay.
    """
    plain = unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_")
    if not name:
        raise InputError(f"{folder}: a dataset's name is made of a-z, 0-9, _ and -; give a folder such as my-shop.")
    return name


def read_given(columns: list[str]) -> dict[str, str]:
    """`timestamp=Datum` as {"timestamp": "Datum"}.

    Raises:
        InputError: for anything else, and a name given twice.
    """
    given: dict[str, str] = {}
    for text in columns:
        ours, equals, yours = text.partition("=")
        if not equals or not ours.strip() or not yours.strip() or ours.strip() in given:
            raise InputError(f"--column {text!r}: give each of our names once, as in --column timestamp=Datum.")
        given[ours.strip()] = yours.strip()
    return given


def _lines(
    folder: Path,
    dataset: str,
    extent: str,
    guesses: dict[str, str],
    warnings: list[str],
    written: tuple[str, ...],
    kept: tuple[str, ...],
    left_out: tuple[tuple[str, str], ...],
) -> list[str]:
    lines = [f"Looked at {extent}. Guessed, as {dataset}.yaml explains:"]
    lines += [f"  {ours:<15} {column}" for ours, column in guesses.items()]
    lines += [f"Note: {warning}" for warning in warnings]
    lines += [f"Left out: {path} ({why})" for path, why in left_out[:5]]
    if written:
        lines.append(f"Written in {folder}: {', '.join(written)}")
    if kept:
        lines.append(f"There already, left as {'it is' if len(kept) == 1 else 'they are'}: {', '.join(kept)}")
    return [*lines, f"Next: cd {shlex.quote(str(folder))}, read {dataset}.yaml, then `overnight retrain`."]
