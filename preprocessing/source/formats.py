"""What columns files have, and one lazy frame of many files, whatever their format: Parquet, CSV or JSON.

Columns are named by the paths that are wanted of them (see `paths`), as they are written in the dataset. Text files are
read as text. `key=value` folder names below the source are columns of text, too; a column that the file itself has goes
before one of its folders.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any
from urllib.parse import unquote

import polars as pl

from preprocessing.source import json_lines
from preprocessing.source.delimited import scan_delimited
from preprocessing.source.files import CSV, JSON, PARQUET, PLAIN, format_of, reading
from preprocessing.source.headers import header_of, hint_of
from preprocessing.source.listing import SourceFile, store_options
from preprocessing.source.paths import Path, extract, inside, parse, type_at
from preprocessing.source.quoting import Layout, layout_of
from preprocessing.source.values import with_point
from schemas.dataset import FileOptions
from schemas.errors import InputError

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # how folder names write null
AT_ONCE = 16  # files opened side by side: object stores answer slowly, and to many at a time
PATH = "source path"  # beside the columns of a scan, when asked for
NULL_WORDS = ("\\N", "NULL", "null")  # of text files, unless a dataset says others


@dataclass(frozen=True)
class Columns:
    """The columns of one file: those in it, with all their names in order, and those of its folders."""

    names: tuple[str, ...]
    stored: dict[str, pl.DataType]
    """Of the wanted paths that the file has: the types as they are stored."""
    folders: dict[str, str | None]
    blank: bool = False
    """Whether there is nothing in the file, not even a header: it fits every table and has no rows."""
    hint: str = ""
    """What to set, where the names look like none."""
    without_lists: int = 0
    """How many rows the file has, where none has the list whose elements are wanted: it gives no rows."""


def columns_of(files: Sequence[SourceFile], wanted: Collection[str], options: FileOptions = PLAIN) -> list[Columns]:
    """The columns of each file.

    Raises:
        InputError: naming a file that cannot be read.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(_columns_of, wanted=frozenset(wanted), options=options), files))


def folder_values(file: SourceFile, options: FileOptions = PLAIN) -> dict[str, str | None]:
    """The values that the names of a file's folders hold: day=2024-01-01/part.parquet has a day; null words are null."""
    pairs = (part.split("=", 1) for part in file.path.split("/")[:-1] if "=" in part)
    nulls = {NO_VALUE, "", *(NULL_WORDS if options.null_words is None else options.null_words)}
    return {key: None if value in nulls else value for key, text in pairs for value in (unquote(text),)}


def scan(
    files: Sequence[SourceFile],
    stored: Mapping[str, pl.DataType],
    options: FileOptions = PLAIN,
    *,
    paths: bool,
    as_text: Collection[str] = (),
) -> pl.LazyFrame:
    """One lazy frame of files that have these paths stored alike; with the column PATH, if asked for.

    Null words are null. `as_text` are the paths whose text is left as it is, be there a decimal comma or not.

    Raises:
        InputError: for a CSV whose rows do not have the fields of its header; other faults show when the plan runs.
    """
    path = PATH if paths else None
    keep = [PATH] if paths else []
    frames = [extract(frame, wanted, keep, where=_where(files)) for frame, wanted in _raw(files, stored, options, path)]
    frame = frames[0] if len(frames) == 1 else pl.concat(frames)
    return frame.with_columns(_cleaned(stored, options, format_of(files[0], options), as_text))


def count_without_elements(
    files: Sequence[SourceFile], stored: Mapping[str, pl.DataType], options: FileOptions = PLAIN
) -> int:
    """How many rows (and elements that hold lists) give no row in `scan`, as the list to go through is empty or null."""
    lost: list[pl.LazyFrame] = []
    for frame, wanted in _raw(files, stored, options, None):
        extract(frame, wanted, (), lost, _where(files))
    return sum(plan.collect(engine="streaming").item() for plan in lost)


def _raw(
    files: Sequence[SourceFile], stored: Mapping[str, pl.DataType], options: FileOptions, path: str | None
) -> list[tuple[pl.LazyFrame, list[Path]]]:
    """A frame for each layout of files, and the paths into its columns."""
    kind = format_of(files[0], options)
    if kind != JSON:
        return (_scan_parquet if kind == PARQUET else _scan_delimited)(files, stored, options, path)
    dotted = any(character in text for text in stored for character in ".[")
    names = {name for file in files for name in json_lines.names_of(file, options)} if dotted else set()
    wanted = [parse(text, names) for text in stored]
    return [(json_lines.scan_json(files, json_lines.schema_of(wanted, stored), options, path), wanted)]


def _scan_parquet(
    files: Sequence[SourceFile], stored: Mapping[str, pl.DataType], options: FileOptions, path: str | None
) -> list[tuple[pl.LazyFrame, list[Path]]]:
    groups: dict[str, tuple[list[SourceFile], dict[str, pl.DataType], list[Path]]] = {}
    for file in files:
        schema = _parquet_schema(file)
        wanted = [parse(text, schema) for text in stored]
        roots = {way.root: schema[way.root] for way in wanted}
        groups.setdefault(repr(roots), ([], roots, wanted))[0].append(file)
    frames = []
    for alike, roots, wanted in groups.values():
        urls: Any = alike[0].url if len(alike) == 1 else [file.url for file in alike]
        frame = pl.scan_parquet(
            urls,
            schema=roots,
            extra_columns="ignore",
            glob=False,
            hive_partitioning=False,
            storage_options=store_options(alike[0].url),
            include_file_paths=path,
        )
        frames.append((frame, wanted))
    return frames


def _scan_delimited(
    files: Sequence[SourceFile], stored: Mapping[str, pl.DataType], options: FileOptions, path: str | None
) -> list[tuple[pl.LazyFrame, list[Path]]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        layouts = list(pool.map(partial(layout_of, options=options), files))
    groups: dict[Layout, list[SourceFile]] = {}
    for file, layout in zip(files, layouts, strict=True):
        groups.setdefault(layout, []).append(file)
    frames = []
    for layout, alike in groups.items():
        wanted = [parse(text, layout.names) for text in stored]
        columns = list(dict.fromkeys(way.root for way in wanted))
        frame = scan_delimited(alike, layout, options, columns, path)
        frames.append((frame, wanted))
    return frames


def _cleaned(
    stored: Mapping[str, pl.DataType], options: FileOptions, kind: str, as_text: Collection[str]
) -> list[pl.Expr]:
    """Columns of text without null words, and with numbers as Polars reads them."""
    words = options.null_words if options.null_words is not None else () if kind == PARQUET else NULL_WORDS
    words = (*words, "") if kind == CSV else tuple(words)  # "" with quotes as without
    texts = {name: pl.col(name) for name, dtype in stored.items() if dtype == pl.String}
    if words:
        texts = {name: pl.when(~text.is_in(list(words))).then(text) for name, text in texts.items()}
    if options.decimal == ",":
        texts |= {name: with_point(text) for name, text in texts.items() if name not in as_text}
    return [text.alias(name) for name, text in texts.items()] if words or options.decimal == "," else []


def _columns_of(file: SourceFile, wanted: frozenset[str], options: FileOptions) -> Columns:
    folders = folder_values(file, options)
    kind = format_of(file, options)
    with reading(f"{file.url} ({kind})"):
        if kind == JSON:
            keys = json_lines.keys_of(file, wanted, options)
            hint = _lists(keys.inside)
            return Columns(keys.names, dict(keys.stored), folders, keys.blank, hint, keys.without_lists)
        if kind == CSV:
            names = header_of(file, options).names
            schema: Mapping[str, pl.DataType] = dict.fromkeys(names, pl.String())
            blank, hint = not names, hint_of(names, file, options)
        else:
            schema, blank, hint = _parquet_schema(file), False, ""
            hint = _lists(inside(schema))
    paths = [parse(text, schema) for text in sorted(wanted)]
    try:
        ends = {path.text: type_at(path, schema.get(path.root)) for path in paths}
    except InputError as error:
        raise InputError(f"{file.url}: {error}") from None
    for root in {path.root for path in paths if path.steps and path.steps[0].kind != "split"}:
        if schema.get(root) == pl.String and _is_plain_text(file, root, options):
            ends |= {path.text: None for path in paths if path.root == root and path.steps}
            hint += f" Column {root!r} holds text that is no JSON, so there is nothing in it."
    doubled = [path.root for path in paths if kind == CSV and names.count(path.root) > 1]
    if doubled:
        places = [f"column_{place}" for place, name in enumerate(names, 1) if name == doubled[0]]
        raise InputError(
            f"{file.url}: column {doubled[0]!r} is there twice ({' and '.join(places)}): rename one in the file."
        )
    return Columns(
        tuple(schema), {text: dtype for text, dtype in ends.items() if dtype is not None}, folders, blank, hint
    )


def _where(files: Sequence[SourceFile]) -> str:
    """A group of files in messages on what is seen only while they are read."""
    return files[0].url if len(files) == 1 else f"{files[0].url} or one of the {len(files) - 1} files read with it"


def _is_plain_text(file: SourceFile, column: str, options: FileOptions) -> bool:
    """Whether a column of text has values, none of which begins like a list or an object of JSON."""
    ((frame, _),) = _raw([file], {column: pl.String()}, options, None)
    text = pl.col(column).str.strip_chars_start()
    words = options.null_words if options.null_words is not None else NULL_WORDS
    frame = frame.select(text).filter(~text.is_in([*words, ""]))
    with reading(file.url):
        if frame.head(1).collect(engine="streaming").is_empty():
            return False
        return frame.filter(text.str.contains(r"^[\[{]")).head(1).collect(engine="streaming").is_empty()


def _lists(paths: Sequence[str]) -> str:
    listed = ", ".join(paths[:8])
    return f" Inside its columns: {listed}; [] is a row an element." if paths else ""


@lru_cache(1 << 16)
def _parquet_schema(file: SourceFile) -> pl.Schema:
    options = store_options(file.url)
    return pl.scan_parquet(file.url, glob=False, hive_partitioning=False, storage_options=options).collect_schema()
