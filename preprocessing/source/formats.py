"""What columns files have, told without reading the files: footers of Parquet, the first rows of text files.

Text files (CSV, JSON lines) are read as text: which types their columns have is decided elsewhere. `key=value` folder names
below the source are columns of text, too; a column that the file itself has goes before one of its folders.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

import polars as pl

from preprocessing.source.files import CSV, JSON, PARQUET, SAMPLE_ROWS, format_of, reading
from preprocessing.source.listing import SourceFile, store_options

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # how folder names write null
AT_ONCE = 16  # files opened side by side: object stores answer slowly, and to many at a time
PATH = "source path"  # beside the columns of a scan, when asked for


@dataclass(frozen=True)
class Columns:
    """The columns of one file: those in it, with all their names in order, and those of its folders."""

    names: tuple[str, ...]
    stored: dict[str, pl.DataType]  # of the columns asked for
    folders: dict[str, str | None]


def columns_of(files: Sequence[SourceFile], wanted: Collection[str]) -> list[Columns]:
    """The columns of each file.

    Raises:
        InputError: naming a file that cannot be read.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(_columns_of, wanted=wanted), files))


def folder_values(file: SourceFile) -> dict[str, str | None]:
    """The values that the names of a file's folders hold: day=2024-01-01/part.parquet has a day."""
    pairs = (part.split("=", 1) for part in file.path.split("/")[:-1] if "=" in part)
    return {key: None if value == NO_VALUE else unquote(value) for key, value in pairs}


def scan(files: Sequence[SourceFile], stored: dict[str, pl.DataType], *, paths: bool) -> pl.LazyFrame:
    """One lazy frame of files that have these columns stored alike; with the column PATH, if asked for."""
    first = files[0]
    urls: Any = first.url if len(files) == 1 else [file.url for file in files]
    options: dict[str, Any] = {
        "storage_options": store_options(first.url),
        "include_file_paths": PATH if paths else None,
    }
    if format_of(first) == PARQUET:
        return pl.scan_parquet(
            urls, schema=stored, extra_columns="ignore", glob=False, hive_partitioning=False, **options
        )
    if format_of(first) == CSV:
        return pl.scan_csv(urls, infer_schema=False, glob=False, **options)
    return pl.scan_ndjson(urls, schema=stored, **options)


def _columns_of(file: SourceFile, wanted: Collection[str]) -> Columns:
    options = store_options(file.url)
    with reading(f"{file.url} ({format_of(file)})"):
        if format_of(file) == JSON:
            found = pl.scan_ndjson(file.url, infer_schema_length=SAMPLE_ROWS, storage_options=options).collect_schema()
            stored = {name: dtype if dtype.is_nested() else pl.String() for name, dtype in found.items()}
        elif format_of(file) == PARQUET:
            found = pl.scan_parquet(
                file.url, glob=False, hive_partitioning=False, storage_options=options
            ).collect_schema()
            stored = dict(found)
        else:
            found = pl.scan_csv(file.url, infer_schema=False, glob=False, storage_options=options).collect_schema()
            stored = dict(found)
    asked_for = {name: dtype for name, dtype in stored.items() if name in wanted}
    return Columns(tuple(found), asked_for, folder_values(file))
