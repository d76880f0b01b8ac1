"""Find the files of a dataset: a file, a folder or a glob below its source, local or in an object store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSPC
from functools import lru_cache
from itertools import takewhile
from pathlib import Path, PurePosixPath

import fsspec
import polars as pl
from fsspec.utils import glob_translate

from preprocessing.source.away import RAISED, answering, without_plan
from preprocessing.source.listing import ETAG, SourceFile, is_remote, join, list_files
from schemas.artifacts import sha256
from schemas.dataset import Dataset, FileOptions
from schemas.errors import InputError, reason

PARQUET, CSV, JSON = "Parquet", "CSV", "JSON lines"
PACKED = ("", ".gz", ".zst", ".bz2")
FORMATS = {".parquet": PARQUET} | {
    f"{ending}{packed}": kind
    for ending, kind in {".csv": CSV, ".tsv": CSV, ".json": JSON, ".jsonl": JSON, ".ndjson": JSON}.items()
    for packed in PACKED
}
UNREAD = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar", ".xz", ".lz4", ".snappy", ".br")
STATED = {"csv": CSV, "json": JSON, "jsonl": JSON, "parquet": PARQUET}  # the words of `format`
SAMPLE_ROWS = 10_000  # rows that decide the types of a text file
PLAIN = FileOptions()
_FULL = f"(os error {ENOSPC})"  # how Polars says that there is no room


@dataclass(frozen=True)
class Found:
    """The files that a path stands for, and those at the same place that are not read, each with why."""

    files: list[SourceFile]
    left_out: tuple[tuple[str, str], ...] = ()


def source_files(dataset: Dataset) -> list[SourceFile]:
    """The files events are read from, sorted by path.

    Raises:
        InputError: when there are none, when formats are mixed, when the path would leave the source.
    """
    return find_files(dataset, dataset.events.path, "events.path", dataset.events.file_options)


def find_files(dataset: Dataset, path: str, key: str, options: FileOptions = PLAIN) -> list[SourceFile]:
    """The files that `path` (a file, a folder, or a glob below the source) stands for, all of one format, by path."""
    return find(dataset, path, key, options).files


def find(dataset: Dataset, path: str, key: str, options: FileOptions = PLAIN) -> Found:
    """The files that `path` stands for, all of one format, by path; and what of its folder is left out.

    Of folders and globs, what is hidden (its name, or that of a folder on the way, begins with . or _) is left out, of
    folders also what has no known ending unless `options.format` says what it is, and files of no bytes.

    Raises:
        InputError: when no file is left, when formats are mixed, when the path would leave the source.
    """
    pattern = PurePosixPath(path)
    if pattern.is_absolute() or ".." in pattern.parts or is_remote(path):
        raise InputError(f"{_named(key, path)} leaves the source folder; give a path below it.")
    start = PurePosixPath(*takewhile(lambda part: not _is_pattern(part), pattern.parts))
    listed = sorted(list_files(dataset.source, start.as_posix()), key=lambda file: file.path)
    if start != pattern:
        fits = re.compile(glob_translate(pattern.as_posix()))
        listed = [file for file in listed if fits.match(file.path)]
    single = [file.path for file in listed] == [pattern.as_posix()]
    reasons = {file.path: "" if single else _why_not(file, pattern, options) for file in listed}
    files = [file for file in listed if not reasons[file.path]]
    if not files:
        where = f"{join(dataset.source, path)}{_there(dataset.source)}"
        raise InputError(f"{key}: no {', '.join(FORMATS)} file at {where}.{_told(reasons)}")
    _check_format(files, path, key, options)
    reasons |= {file.path: "it has no bytes" for file in files if not file.size}
    left_out = tuple((name, reason) for name, reason in reasons.items() if reason)
    files = [file for file in files if file.size]
    if not files:
        raise InputError(f"{key}: no file at {join(dataset.source, path)} has any rows.{_told(reasons)}")
    return Found(files, left_out)


def format_of(file: SourceFile, options: FileOptions = PLAIN) -> str:
    """Parquet, CSV or JSON lines, as the options say or by the end of the name in any case; empty for others."""
    if options.format != "auto":
        return STATED[options.format]
    return _by_ending(_ending(file))


@lru_cache(1024)
def _by_ending(ending: str) -> str:
    return next((kind for known, kind in FORMATS.items() if ending.endswith(known)), "")


def _ending(file: SourceFile) -> str:
    """The end of a name that says what it holds, in small letters: `.csv`, or of a packed file `.csv.gz`."""
    name = file.path.lower()
    start = max(0, name.rfind("."))
    return name[max(0, name.rfind(".", 0, start)) if name[start:] in PACKED else start :]


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
    """Turn what Polars says about files that cannot be read into one line that names the place.

    Raises:
        InputError: for what is wrong with a file.
        AwayError: where the place does not answer for a moment.
    """
    try:
        with answering(place):
            yield
    except InputError as error:
        raise InputError(without_plan(str(error))) from None
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        if raised := RAISED.search(str(error)):
            raise InputError(without_plan(str(error)[raised.end() :])) from None
        if (
            _FULL in str(error) or getattr(error, "errno", None) == ENOSPC
        ):  # of what is written on the way, not of the source
            raise InputError("The disk of --root is full: make room there, and run it again.") from None
        first = error if getattr(error, "strerror", None) else ValueError(str(error).partition("\n")[0])
        raise InputError(f"{place}: cannot be read ({reason(first)})") from None


def _why_not(file: SourceFile, pattern: PurePosixPath, options: FileOptions) -> str:
    if file.path[:1] in "._" or "/." in file.path or "/_" in file.path:
        asked_for = {part[0] for part in pattern.parts}
        if any(part[:1] in "._" and part[:1] not in asked_for for part in file.path.split("/")):
            return "its name, or that of a folder, begins with . or _"
    return _why_not_read(_ending(file), options.format)


@lru_cache(1024)
def _why_not_read(ending: str, stated: str) -> str:
    if packed := _packed_as(ending):
        return packed
    kind = _by_ending(ending)
    if kind and stated != "auto" and kind != STATED[stated]:
        return f"it ends like {kind}, and the format is {stated}"
    return "" if kind or stated != "auto" else "its ending is not known: `format` says what it is"


def _packed(file: SourceFile) -> str:
    """Why a packed file cannot be read; empty for others."""
    return _packed_as(_ending(file))


@lru_cache(1024)
def _packed_as(ending: str) -> str:
    if ending.endswith(tuple(f".parquet{packed}" for packed in PACKED[1:])):
        return "Parquet packs its own columns: unpack the file"
    packed = ending.endswith(UNREAD)
    return "it is packed in a way that is not read: unpack it, or use gzip, zstd or bzip2" if packed else ""


def _told(reasons: dict[str, str]) -> str:
    listed = [f"{name} ({reason})" for name, reason in reasons.items() if reason]
    return f" Left out: {'; '.join(listed[:4])}{' and others' if len(listed) > 4 else ''}." if listed else ""


def _check_format(files: list[SourceFile], path: str, key: str, options: FileOptions) -> None:
    formats = {format_of(file, options): file.path for file in reversed(files)}
    if "" in formats:
        packed = next((_packed(file) for file in files if file.path == formats[""]), "")
        of_yaml = f"set {key.partition('.')[0]}.format to csv, json or parquet, or rename it"
        mend = packed or ("rename it" if key.startswith("--") else of_yaml)
        raise InputError(
            f"{key}: cannot tell the format of {formats['']!r}: {mend}. Known endings: {', '.join(FORMATS)}."
        )
    if len(formats) > 1:
        mixed = " and ".join(f"{kind} ({name})" for kind, name in formats.items())
        raise InputError(
            f"{_named(key, path)} mixes {mixed}; keep one format, or narrow it with a glob such as *.parquet."
        )


def _named(key: str, path: str) -> str:
    """A path and who gave it; of a whole folder the option names it already."""
    return key if path == "." else f"{key} {path!r}"


def _is_pattern(part: str) -> bool:
    return any(character in part for character in "*?[")


def _there(source: str) -> str:
    if is_remote(source):
        return ""
    names = ", ".join(sorted(place.name for place in Path(source).iterdir())[:8]) or "nothing"
    return f"; {source} holds {names}"
