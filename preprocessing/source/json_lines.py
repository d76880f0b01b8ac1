"""JSON files: an object a line, or one list of objects; read by the keys that are wanted, whatever else is in them.

Scalars are read as text. A wanted value of another shape than its path says (`[]` where others have an object, one object
where others have a list) becomes null or a list of one; a value that is wanted whole and varies is text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import takewhile
from typing import Any

import polars as pl

from preprocessing.source.files import SAMPLE_ROWS
from preprocessing.source.listing import SourceFile
from preprocessing.source.paths import Path, as_type, inside, json_type, parse
from preprocessing.source.text import ENCODINGS, TextFile, on_demand
from schemas.dataset import FileOptions
from schemas.errors import InputError

LINES = 20_000  # of a list of objects, given on as a block

_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


@dataclass(frozen=True)
class Keys:
    """What a JSON file has: names of its keys as far as they are known, and the types of wanted paths in it."""

    names: tuple[str, ...]
    stored: tuple[tuple[str, pl.DataType], ...]
    blank: bool
    inside: tuple[str, ...]
    """Paths to what is in objects and lists of the first row that has some."""
    without_lists: int = 0
    """How many rows there are, where the lists whose elements are wanted are null or missing in all of them."""


@lru_cache(1 << 16)
def keys_of(file: SourceFile, wanted: frozenset[str], options: FileOptions) -> Keys:
    """The keys of the first rows, and which of the wanted paths the file has: of all its rows, where the first lack some.

    Raises:
        InputError: for what is no JSON, with its line.
    """
    rows = _sample(file, options)
    names = dict.fromkeys(key for row in rows for key in row)
    paths = [parse(text, names) for text in sorted(wanted)]
    stored: dict[str, pl.DataType] = {}
    open_ends = []
    for path in paths:
        kinds = {_kind(value) for row in rows for value in _values(row, path)} - {None}
        if kinds == {"scalar"} or (kinds and path.steps):
            stored[path.text] = pl.Int64() if path.steps and path.steps[-1].kind == "index" else pl.String()
        else:
            open_ends.append(path)
    if open_ends:
        stored |= _in_all_rows(file, open_ends, options)
    lists = [path for path in paths if any(step.kind == "each" for step in path.steps)]
    lost = _without(file, lists, options) if lists and not any(path.text in stored for path in lists) else 0
    return Keys(tuple(names), tuple(stored.items()), not rows, _inside(rows), lost)


@lru_cache(1 << 16)
def names_of(file: SourceFile, options: FileOptions) -> frozenset[str]:
    """The keys of the first rows."""
    return frozenset(key for row in _sample(file, options) for key in row)


def schema_of(paths: Iterable[Path], stored: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    """What each key is read as, so that all paths lead somewhere."""
    ways: dict[str, list[Path]] = {}
    for path in paths:
        ways.setdefault(path.root, []).append(path)
    return {
        root: json_type([path.steps for path in own], next((stored[p.text] for p in own if not p.steps), pl.String()))
        for root, own in ways.items()
    }


def scan_json(
    files: Sequence[SourceFile], schema: Mapping[str, pl.DataType], options: FileOptions, path: str | None
) -> pl.LazyFrame:
    """These keys of all files, with a column of the files' URLs, if `path` names it."""

    def frames(wanted: list[str]) -> Iterator[tuple[SourceFile, pl.DataFrame]]:
        own = {name: schema[name] for name in wanted}
        return ((file, _parse(block, own, file, first)) for file in files for first, block in _blocks(file, options))

    return on_demand(frames, schema, path)


def _parse(block: bytes, schema: dict[str, pl.DataType], file: SourceFile, first: int) -> pl.DataFrame:
    if _HALF.search(block):
        _check_halves(block, schema, file, first)
    try:
        return pl.read_ndjson(block, schema=schema)
    except pl.exceptions.PolarsError:
        # A line that is no JSON, which is then named, or values of other shapes than others, which are made fit.
        rows = [
            {key: _fitted(row.get(key), dtype) for key, dtype in schema.items()} for row in _rows(block, file, first)
        ]
        return pl.DataFrame(rows, schema=schema, strict=False)


def _check_halves(block: bytes, schema: Mapping[str, pl.DataType], file: SourceFile, first: int) -> None:
    """Refuse halves of surrogate pairs in wanted values: they are no characters, and all would become the same text."""
    for number, line in enumerate(block.split(b"\n"), first):
        if not _HALF.search(line):
            continue
        for row in _rows(line, file, number):
            for key in schema.keys() & row.keys():
                try:
                    json.dumps(row[key], ensure_ascii=False).encode()
                except UnicodeEncodeError:
                    raise InputError(
                        f"{file.url}, line {number}: {key!r} holds half of a surrogate pair, such as \\ud800 alone, "
                        f"which is no character: {line[:200].decode('utf-8', 'replace')!r}. Mend the line."
                    ) from None


def _rows(block: bytes, file: SourceFile, first: int) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(block.split(b"\n"), first):
        if not line.strip():
            continue
        where = f"{file.url}, line {number}"
        row = _parsed(line, where)
        if not isinstance(row, dict):
            raise InputError(f"{where}: a row is an object {{...}}, got {line[:200].decode('utf-8', 'replace')!r}.")
        yield row


def _parsed(content: bytes, where: str) -> Any:
    """The value of JSON text; `where` is what a message begins with."""
    try:
        return json.loads(content)
    except UnicodeDecodeError:
        raise InputError(f"{where}: is not UTF-8; set encoding, such as {ENCODINGS}.") from None
    except ValueError as error:
        raise InputError(f"{where}: is no JSON ({error}): {content[:200].decode('utf-8', 'replace')!r}.") from None


def _blocks(file: SourceFile, options: FileOptions) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines, each an object, and the number of their first line."""
    with TextFile(file, options) as text:
        blocks = text.blocks()
        head, first = b"", 1
        for head in blocks:
            if head.strip():
                break
            first += head.count(b"\n")
        if not head.strip():
            return
        if not _is_lines(head):
            yield from _of_document(b"".join([head, *blocks]), file)
            return
        yield first, head
        first += head.count(b"\n")
        for block in blocks:
            if block.strip():
                yield first, block
            first += block.count(b"\n")


def _is_lines(head: bytes) -> bool:
    """Whether the first line is an object of its own; else the file is one list or one object over many lines."""
    line = head.lstrip().partition(b"\n")[0]
    if line.startswith(b"["):
        return False
    try:
        json.loads(line)
    except ValueError:
        return line.rstrip() != b"{" and not line.rstrip().endswith(b",")
    return True


def _of_document(content: bytes, file: SourceFile) -> Iterator[tuple[int, bytes]]:
    """The objects of one list as lines; the rows are then counted instead of lines."""
    rows = _parsed(content, file.url)
    rows = rows if isinstance(rows, list) else [rows]
    for first in range(0, len(rows), LINES):
        yield first + 1, "\n".join(map(json.dumps, rows[first : first + LINES])).encode()


def _sample(file: SourceFile, options: FileOptions) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for first, block in _blocks(file, options):
        for row in _rows(block, file, first):
            rows.append(row)
            if len(rows) == SAMPLE_ROWS:
                return rows
    return rows


def _without(file: SourceFile, paths: Collection[Path], options: FileOptions) -> int:
    """The rows of the file, if none holds anything where a path has its first list; else 0."""
    ways = [
        Path(path.text, path.root, tuple(takewhile(lambda step: step.kind != "each", path.steps))) for path in paths
    ]
    count = 0
    for first, block in _blocks(file, options):
        for row in _rows(block, file, first):
            count += 1
            if any(value is not None for way in ways for value in _values(row, way)):
                return 0
    return count


def _inside(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    for row in rows:
        schema = {name: _shape(value) for name, value in row.items() if value}
        if found := inside(schema):
            return tuple(found)
    return ()


def _shape(value: Any) -> pl.DataType:
    if isinstance(value, list):
        return pl.List(_shape(value[0]))
    return pl.Struct(dict.fromkeys(value, pl.String())) if isinstance(value, dict) else pl.String()


def _kind(value: Any) -> str | None:
    if value is None:
        return None
    return "nested" if isinstance(value, dict | list) else "scalar"


def _values(row: Any, path: Path) -> list[Any]:
    """What is at the end of a path in one row; [] where it leads nowhere. An empty list may hold anything."""
    values = [row.get(path.root)] if path.root in row else []
    for step in path.steps:
        if step.kind in ("split", "index"):
            return ["there"] if values else []
        if step.kind == "field":
            values = [value[step.name] for value in values if isinstance(value, dict) and step.name in value]
        elif any(value in ([], {}) for value in values):
            return ["there"]
        else:
            values = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return values


def _in_all_rows(file: SourceFile, paths: Collection[Path], options: FileOptions) -> dict[str, pl.DataType]:
    """The types of paths in the whole file; those that are in no row are left out."""
    seen: dict[str, list[pl.Series]] = {path.text: [] for path in paths}
    schema = schema_of(paths, {path.text: pl.String() for path in paths})
    for first, block in _blocks(file, options):
        rows = _parse(block, schema, file, first)
        for path in paths:
            if path.steps and seen[path.text]:
                continue  # it is there: what is inside is text in any case
            values = rows[path.root].drop_nulls() if not path.steps else _ends(rows, path)
            if len(values):
                seen[path.text].append(values)
    return {path.text: pl.String() if path.steps else _whole_type(seen[path.text]) for path in paths if seen[path.text]}


def _ends(rows: pl.DataFrame, path: Path) -> pl.Series:
    # A list that is empty everywhere is there, too.
    found = [value for row in rows.select(path.root).to_dicts() for value in _values(row, path) if value is not None]
    return pl.Series(found[:1], dtype=pl.Object)


def _whole_type(values: list[pl.Series]) -> pl.DataType:
    """The type of values that are wanted whole: a list or an object, where all are such and fit together; else text."""
    texts = pl.concat(values)
    if not texts.str.contains(r"^[\[{]").all():
        return pl.String()
    try:
        decoded = texts.str.json_decode(infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return pl.String()
    return as_type(decoded.dtype)


def _fitted(value: Any, dtype: pl.DataType) -> Any:
    """A value in the shape its type says."""
    if value is None:
        return None
    if isinstance(dtype, pl.Struct):
        if not isinstance(value, dict):
            return None
        return {field.name: _fitted(value.get(field.name), as_type(field.dtype)) for field in dtype.fields}
    if isinstance(dtype, pl.List):
        values = value if isinstance(value, list) else [value] if value not in ({}, "") else []
        return [_fitted(item, as_type(dtype.inner)) for item in values]
    if dtype != pl.String or isinstance(value, str):
        return value
    return _text(value)


def _text(value: Any) -> str:
    """A value as Polars writes it, so that its text is the same whichever reads it: 1.0 is 1, 1e-05 is 0.00001."""
    if isinstance(value, dict):
        return (
            f"{{{', '.join(f'{json.dumps(key, ensure_ascii=False)}: {_text(item)}' for key, item in value.items())}}}"
        )
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, float) and math.isfinite(value):
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    return json.dumps(value, ensure_ascii=False)
