"""Find the files of a dataset and open them as lazy frames, whatever their format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import polars as pl

from schemas.artifacts import sha256
from schemas.dataset import Dataset
from schemas.errors import InputError, unknown

FORMATS = {
    ".parquet": "Parquet",
    ".csv": "CSV",
    ".csv.gz": "CSV",
    ".csv.zst": "CSV",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".jsonl.gz": "JSON lines",
    ".ndjson.gz": "JSON lines",
}
SAMPLE_ROWS = 10_000  # rows that decide the types of a text file


def source_files(dataset: Dataset) -> list[Path]:
    """The files events are read from, sorted by path.

    Raises:
        InputError: when there are none, when formats are mixed, when the path would leave the source folder.
    """
    return find_files(dataset, dataset.events.path, "events.path")


def fingerprints(dataset: Dataset) -> dict[str, str]:
    """The content hash of every file the dataset is read from, by its path below the source."""
    files = source_files(dataset)
    if dataset.items:
        files += find_files(dataset, dataset.items.path, "items.path")
    return {file.relative_to(dataset.source).as_posix(): sha256(file) for file in files}


def find_files(dataset: Dataset, path: str, key: str) -> list[Path]:
    """The files that `path` (a file, a folder, or a glob below the source) stands for, all of one format."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise InputError(f"{key} {path!r} leaves the source folder; give a path below {dataset.source or '--source'}.")
    source = Path(dataset.source)
    if not source.is_dir():
        raise InputError(f"The source of {dataset.name!r} is not a folder: {source.absolute()}. Give --source FOLDER.")
    if any(character in path for character in "*?["):
        files = sorted(file for file in source.glob(path) if file.is_file())
    elif (source / path).is_dir():
        files = sorted(file for file in (source / path).rglob("*") if _format(file) and _is_visible(file, source))
    else:
        files = [source / path] if (source / path).is_file() else []
    if not files:
        there = ", ".join(sorted(file.name for file in source.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{key}: no {', '.join(FORMATS)} file at {(source / path).absolute()}; {source} holds {there}."
        )
    formats = {_format(file): file.name for file in files}
    if "" in formats:
        raise InputError(f"{key}: cannot tell the format of {formats['']!r}; known endings: {', '.join(FORMATS)}.")
    if len(formats) > 1:
        found = " and ".join(f"{kind} ({name})" for kind, name in formats.items())
        raise InputError(f"{key} {path!r} mixes {found}; keep one format, or narrow it with a glob such as *.parquet.")
    return files


def open_file(file: Path, columns: Mapping[str, str]) -> tuple[pl.LazyFrame, dict[str, pl.DataType]]:
    """A lazy frame of the file's `columns` under our names, and the type each seems to hold.

    Text files (CSV, JSON lines) are read as text and their types told from the first rows, so that one odd value further
    down is one odd row and not the end of the run.

    Raises:
        InputError: when the file cannot be read or lacks a column.
    """
    with reading(f"{file} ({_format(file)})"):
        frame, schema = _scan(file)
    for ours, theirs in columns.items():
        if theirs not in schema:
            raise InputError(f"{file}: column for {ours!r}: {unknown('column', theirs, schema)}")
    return frame.select(**{ours: pl.col(theirs) for ours, theirs in columns.items()}), {
        ours: schema[theirs] for ours, theirs in columns.items()
    }


@contextmanager
def reading(place: Path | str) -> Iterator[None]:
    """Turn what Polars says about damaged files into an InputError that names the place."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{place}: cannot be read ({str(error).partition(chr(10))[0]})") from None


def _scan(file: Path) -> tuple[pl.LazyFrame, dict[str, pl.DataType]]:
    kind = _format(file)
    if kind == "Parquet":
        frame = pl.scan_parquet(file, hive_partitioning=False)
        return frame, dict(frame.collect_schema())
    if kind == "CSV":
        schema = dict(pl.scan_csv(file, infer_schema_length=SAMPLE_ROWS).collect_schema())
        return pl.scan_csv(file, infer_schema=False), schema
    schema = dict(pl.scan_ndjson(file, infer_schema_length=SAMPLE_ROWS).collect_schema())
    as_text = {name: pl.String() for name, dtype in schema.items() if not dtype.is_nested()}
    return pl.scan_ndjson(file, schema={**schema, **as_text}), schema


def _format(file: Path) -> str:
    return next((kind for ending, kind in FORMATS.items() if file.name.endswith(ending)), "")


def _is_visible(file: Path, source: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in file.relative_to(source).parts)
