"""A look at the files of a source: which they are, how they are written, and some of their rows.

look(Path("shop/events.csv")) -> Look(source="shop", path="events.csv", options=..., rows=..., notes=...)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from flows.init.sniff import sniff
from preprocessing.source import json_lines
from preprocessing.source.files import CSV, JSON, find, format_of, reading
from preprocessing.source.formats import columns_of, folder_values, scan
from preprocessing.source.headers import header_of
from preprocessing.source.listing import SourceFile, is_remote
from preprocessing.source.paths import inside
from schemas.dataset import Dataset, FileOptions
from schemas.errors import InputError

ROWS = 400_000  # that are looked at, of at most so many files
FILES = 24


@dataclass(frozen=True)
class Look:
    """Files that are one table, and what was seen of them."""

    source: str
    """The folder of the files."""
    path: str
    """Below the source: a file, a folder or a glob."""
    files: tuple[SourceFile, ...]
    left_out: tuple[tuple[str, str], ...]
    options: FileOptions
    notes: dict[str, str]
    """By option: why it is set."""
    rows: pl.DataFrame
    """Some rows, all where `whole`: a column for each path, text where the format has no types."""
    whole: bool
    is_text: bool

    @property
    def extent(self) -> str:
        """How much was looked at, for people."""
        files = f"{len(self.files):,} {'file' if len(self.files) == 1 else 'files'}"
        return f"{'all' if self.whole else 'the first'} {self.rows.height:,} rows of {files}"


def look(source: str, path: str) -> Look:
    """The files at `path`, a glob below a source.

    Raises:
        InputError: when there is none, or they cannot be read.
    """
    named = find(_somewhere(source), path, f"--from {source}", _stated(source, path))
    options, notes = sniff(named.files[0])
    files = named.files
    rows = _sample(files, options)
    if not rows.width or not rows.height:
        raise InputError(f"--from {files[0].url}: there are no rows in it.")
    whole = len(files) <= FILES and rows.height < ROWS
    is_text = format_of(files[0], options) in (CSV, JSON)
    return Look(source, path, tuple(files), named.left_out, options, notes, rows, whole, is_text)


def place_of(given: str) -> tuple[str, str]:
    """The source and the path below it that `--from` names.

    Raises:
        InputError: when nothing is there.
    """
    if is_remote(given):
        source, _, name = given.rstrip("/").rpartition("/")
        return (source, name) if "." in name else (given.rstrip("/"), ".")
    place = Path(given).expanduser()
    if not place.exists():
        near = sorted(child.name for child in place.parent.iterdir())[:8] if place.parent.is_dir() else []
        raise InputError(
            f"--from {given}: nothing is there. {place.parent.resolve()} holds {', '.join(near) or 'nothing'}."
        )
    place = place.resolve()
    return (str(place), ".") if place.is_dir() else (str(place.parent), place.name)


def _somewhere(source: str) -> Dataset:
    events = {"columns": {"item_id": "item", "user_id": "user", "timestamp": "time"}}
    return Dataset.model_validate({"name": "init", "source": source, "events": events})


def _stated(source: str, path: str) -> FileOptions:
    """For one file whose ending says nothing: what its first bytes say."""
    place = Path(source) / re.sub(r"\[(.)\]", r"\1", path)
    if is_remote(source) or not place.is_file():
        return FileOptions()
    file = SourceFile(place.name, str(place), place.stat().st_size, "")
    return sniff(file)[0] if not format_of(file) else FileOptions()


def _sample(files: Sequence[SourceFile], options: FileOptions) -> pl.DataFrame:
    """Rows of files from the first to the last, with a column for each path that leads to one value."""
    step = max(1, len(files) // FILES)
    chosen = list(dict.fromkeys([*files[::step][: FILES - 1], files[-1]]))
    each = ROWS // len(chosen)
    frames = [_rows(file, options, each) for file in chosen]
    frames = [frame for frame in frames if frame.height]
    if len(frames) < 2:
        return frames[0] if frames else pl.DataFrame()
    try:
        return pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError:  # numbers in one file, text in another
        return pl.concat([frame.select(pl.all().cast(pl.String)) for frame in frames], how="diagonal")


def _rows(file: SourceFile, options: FileOptions, most: int) -> pl.DataFrame:
    paths = _paths(file, options)
    (columns,) = columns_of([file], paths, options)
    wanted = {path: columns.stored[path] for path in paths if path in columns.stored}
    if columns.blank or not wanted:
        return pl.DataFrame()
    with reading(file.url):
        rows = scan([file], wanted, options, paths=False).head(most).collect(engine="streaming")
    folders = {key: value for key, value in folder_values(file, options).items() if key not in rows.columns}
    return rows.with_columns(pl.lit(value, pl.String).alias(key) for key, value in folders.items())


def _paths(file: SourceFile, options: FileOptions) -> list[str]:
    """Columns and what is inside them; elements of lists only where rows hold no item otherwise, of one list."""
    kind = format_of(file, options)
    if kind == CSV:
        names = header_of(file, options).names
        return [name for name in names if name and names.count(name) == 1]
    if kind == JSON:
        keys = json_lines.keys_of(file, frozenset(), options)
        outer = [
            name for name in keys.names if not any(path.startswith((f"{name}.", f"{name}[")) for path in keys.inside)
        ]
        return _one_list(outer, list(keys.inside))
    schema = pl.scan_parquet(file.url, glob=False, hive_partitioning=False).collect_schema()
    outer = [name for name, dtype in schema.items() if not dtype.is_nested()]
    return _one_list(outer, inside(schema))


def _one_list(outer: list[str], deep: list[str]) -> list[str]:
    from flows.init.words import name_score

    single, lists = [path for path in deep if "[]" not in path], [path for path in deep if "[]" in path]
    has_item = any(name_score(name, "item") for name in [*outer, *single])
    best = max(lists, key=lambda path: name_score(path, "item"), default="")
    if has_item or not best:
        return [*outer, *single]
    root = best.partition("[]")[0]
    return [*outer, *single, *(path for path in lists if path.partition("[]")[0] == root)]
