"""Find the files of a dataset: a file, a folder or a glob below its source, local or in an object store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path, PurePosixPath

import fsspec
import polars as pl
from fsspec.utils import glob_translate

from preprocessing.source.listing import ETAG, SourceFile, is_remote, join, list_files
from schemas.artifacts import sha256
from schemas.dataset import Dataset
from schemas.errors import InputError

PARQUET, CSV, JSON = "Parquet", "CSV", "JSON lines"
FORMATS = {".parquet": PARQUET} | {
    f"{ending}{packed}": kind
    for ending, kind in {".csv": CSV, ".jsonl": JSON, ".ndjson": JSON}.items()
    for packed in ("", ".gz", ".zst")
}
SAMPLE_ROWS = 10_000  # rows of JSON lines that say which keys there are


def source_files(dataset: Dataset) -> list[SourceFile]:
    """The files events are read from, sorted by path.

    Raises:
        InputError: when there are none, when formats are mixed, when the path would leave the source.
    """
    return find_files(dataset, dataset.events.path, "events.path")


def find_files(dataset: Dataset, path: str, key: str) -> list[SourceFile]:
    """The files that `path` (a file, a folder, or a glob below the source) stands for, all of one format, by path.

    Of folders and globs, what is hidden (its name, or that of a folder on the way, begins with . or _) is left out.
    """
    pattern = PurePosixPath(path)
    if pattern.is_absolute() or ".." in pattern.parts or is_remote(path):
        raise InputError(f"{key} {path!r} leaves the source folder; give a path below it.")
    start = PurePosixPath(*takewhile(lambda part: not _is_pattern(part), pattern.parts))
    files = list_files(dataset.source, start.as_posix())
    if start != pattern:
        fits = re.compile(glob_translate(pattern.as_posix()))
        files = [file for file in files if fits.match(file.path) and _is_visible(file, pattern)]
    elif [file.path for file in files] != [pattern.as_posix()]:
        files = [file for file in files if format_of(file) and _is_visible(file, pattern)]
    if not files:
        raise InputError(
            f"{key}: no {', '.join(FORMATS)} file at {join(dataset.source, path)}{_there(dataset.source)}."
        )
    return _of_one_format(sorted(files, key=lambda file: file.path), path, key)


def format_of(file: SourceFile) -> str:
    """Parquet, CSV or JSON lines, by the end of the name; empty for others."""
    return next((kind for ending, kind in FORMATS.items() if file.path.endswith(ending)), "")


def content_hash(file: SourceFile) -> str:
    """What changes with the content and only with it: SHA-256, or the ETag of an object store that gives one."""
    if not is_remote(file.url):
        return sha256(Path(file.url))
    if file.stamp.startswith(ETAG):
        return file.stamp
    with reading(file.url), fsspec.open(file.url) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def reading(place: Path | str) -> Iterator[None]:
    """Turn what Polars says about damaged files into an InputError that names the place."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{place}: cannot be read ({str(error).partition(chr(10))[0]})") from None


def _of_one_format(files: list[SourceFile], path: str, key: str) -> list[SourceFile]:
    formats = {format_of(file): file.path for file in files}
    if "" in formats:
        raise InputError(f"{key}: cannot tell the format of {formats['']!r}; known endings: {', '.join(FORMATS)}.")
    if len(formats) > 1:
        found = " and ".join(f"{kind} ({name})" for kind, name in formats.items())
        raise InputError(f"{key} {path!r} mixes {found}; keep one format, or narrow it with a glob such as *.parquet.")
    odd = next((file for file in files if format_of(file) == JSON and _is_pattern(file.path)), None)
    if odd:  # the reader of JSON lines would take the name for a glob, and find nothing
        raise InputError(f"{key}: {odd.path!r} has one of *, ? and [ in its name; rename it.")
    return files


def _is_pattern(part: str) -> bool:
    return any(character in part for character in "*?[")


def _is_visible(file: SourceFile, pattern: PurePosixPath) -> bool:
    asked_for = {part[0] for part in pattern.parts}
    return not any(part[:1] in "._" and part[:1] not in asked_for for part in file.path.split("/"))


def _there(source: str) -> str:
    if is_remote(source):
        return ""
    names = ", ".join(sorted(place.name for place in Path(source).iterdir())[:8]) or "nothing"
    return f"; {source} holds {names}"
