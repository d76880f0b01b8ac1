"""CSV files: their header, whether every row has its fields, and the lazy frame that reads them as they are.

A reader that skips columns can lose or invent rows where a quote or a separator stands in a column that it skips. So
each file is counted through once before it is read: with quotes around fields and with quotes as text. What gives every
row as many fields as the header has is how it is read; a file that neither way fits is refused with the line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import polars as pl
import pyarrow
import pyarrow.csv
from polars.io.plugins import register_io_source

from preprocessing.source.fields import Rows, count_fields, count_leniently, looks_quoted
from preprocessing.source.listing import SourceFile, store_options
from preprocessing.source.text import UTF8, TextFile
from schemas.dataset import FileOptions
from schemas.errors import InputError

UNIT = "\x1f"  # stands for separators of several characters
EXCERPT = 200  # characters of a line that a message repeats
GUESSES = (";", "\t", "|", ",")
ENCODINGS = "latin-1 or windows-1252"


@dataclass(frozen=True)
class Header:
    """The columns of a file and how many bytes of its text they take; no names: there is nothing in the file."""

    names: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Layout:
    """How a file is to be read: files of one layout are read together."""

    names: tuple[str, ...]
    quote: str | None
    native: bool
    """Whether Polars reads it right by itself, without holding it."""


def separator_of(file: SourceFile, options: FileOptions) -> str:
    """What is between fields: as stated, a tab in .tsv, else a comma."""
    return options.separator or ("\t" if ".tsv" in file.path.lower().rsplit("/", 1)[-1] else ",")


@lru_cache(1 << 16)
def header_of(file: SourceFile, options: FileOptions) -> Header:
    """The names in the first line that is not empty, or, without a header, column_1, column_2, ...

    Raises:
        InputError: for a file that cannot be unpacked or is not in the encoding.
    """
    with TextFile(file, options) as text:
        start = b""
        for block in text.blocks():
            start += block
            if start.strip(b"\r\n \t\0"):
                break
        else:
            return Header((), len(start))
        if b"\0" in start[:1000]:
            raise InputError(f"{file.url}: its text holds zero bytes; set encoding, such as utf-16 or utf-16-le.")
    begin = len(start) - len(start.lstrip(b"\r\n"))
    start = next(_with_marks([start], file, options))
    fields, size = _first_row(start[begin:], _mark(file, options), options.quote)
    try:
        names = [name.encode(UTF8, "surrogateescape").decode(UTF8) for name in fields]
    except UnicodeDecodeError:
        raise InputError(f"{file.url}: its first line is not UTF-8; set encoding, such as {ENCODINGS}.") from None
    if not options.header:
        return Header(tuple(f"column_{place}" for place in range(1, len(names) + 1)), 0)
    return Header(tuple(names), begin + size)


def hint(names: Sequence[str], file: SourceFile, options: FileOptions) -> str:
    """What to set, where the names of columns look like none; else nothing."""
    used = separator_of(file, options)
    if len(names) == 1:
        guess = next((mark for mark in GUESSES if mark != used and mark in names[0]), None)
        if guess:
            return f" The first line has one field: set separator: {guess!r}."
    if options.header and any(_is_value(name) for name in names):
        return " The first line looks like a row: set header: false and map columns by place, such as item_id: 3."
    return ""


@lru_cache(1 << 16)
def layout_of(file: SourceFile, options: FileOptions) -> Layout:
    """How the file is to be read, told from all of it.

    Raises:
        InputError: naming the line, when rows do not have the fields of the header however quotes are taken.
    """
    header, mark = header_of(file, options), _mark(file, options)
    quote = None if options.quote == "none" else '"' if options.quote == "auto" else options.quote
    with TextFile(file, options) as text:
        count = count_fields(
            _with_marks(text, file, options), len(header.names), ord(mark), None if quote is None else ord(quote)
        )
        usual = text.encoding == UTF8 and text.packed in ("", "gzip", "zstd")
    rows, used = count.plain, None
    if count.quoted and quote:
        simple = count.quoted.astray is None
        quoted = count.quoted if simple else _leniently(file, options, len(header.names), mark, quote)
        used = quote if _is_quoted(count.plain, quoted, file, options, mark, quote) else None
        usual &= simple or used is None
        rows = quoted if used else rows
    elif not rows.fits:
        raise _refusal(file, options, rows)
    plain_names = len({*header.names}) == len(header.names) and mark == separator_of(file, options)
    native = usual and plain_names and count.is_utf8 and not rows.blank and rows.rows > options.header
    return Layout(header.names, used, native)


def _leniently(file: SourceFile, options: FileOptions, fields: int, mark: str, quote: str) -> Rows:
    with TextFile(file, options) as text:
        return count_leniently(_with_marks(text, file, options), fields, mark, quote)


def _is_quoted(plain: Rows, quoted: Rows, file: SourceFile, options: FileOptions, mark: str, quote: str) -> bool:
    """Whether quotes stand around fields; raises InputError when the file does not say."""
    if quoted.fits and (options.quote != "auto" or not plain.fits or plain.fields == 1 or plain.rows == quoted.rows):
        return True
    if quoted.fits:
        where = _line(file, options, quoted.spans or 1)
        raise InputError(
            f"{where} This is {'' if quoted.spans else 'part of '}one row over several lines, or each line is a row with a "
            f"quote in its text. Set quote: '{quote}' for the one, quote: none for the other."
        )
    if options.quote == "auto" and plain.fits:
        with TextFile(file, options) as text:
            if not looks_quoted(_with_marks(text, file, options), ord(mark), ord(quote)):
                return False
    raise _refusal(file, options, quoted)


def _refusal(file: SourceFile, options: FileOptions, rows: Rows) -> InputError:
    if rows.wrong and (rows.astray is None or rows.wrong[0] < rows.astray):
        line, fields = rows.wrong
        what = f"It has {fields} fields, the first line {rows.fields}."
    else:
        line = rows.astray or 1
        what = "A quote that opens a field is not closed before a separator or a line end."
    mend = "Mend the line, or set separator or quote (none: quotes are text) as the file has them."
    return InputError(f"{_line(file, options, line)} {what} {mend}")


def _line(file: SourceFile, options: FileOptions, number: int) -> str:
    """The file, a line of it, from 1, and how it begins."""
    seen = 0
    with TextFile(file, options) as text:
        for block in text.blocks():
            lines = block.count(b"\n")
            if seen + lines >= number or not block.endswith(b"\n"):
                found = block.split(b"\n", number - seen)[number - seen - 1].decode(UTF8, "replace")
                return f"{file.url}, line {number}: {found[:EXCERPT].rstrip()!r}."
            seen += lines
    return f"{file.url}, line {number}."


def _mark(file: SourceFile, options: FileOptions) -> str:
    """The separator as one byte."""
    separator = separator_of(file, options)
    return separator if len(separator.encode()) == 1 else UNIT


def _with_marks(blocks: TextFile | Iterable[bytes], file: SourceFile, options: FileOptions) -> Iterator[bytes]:
    """The file's blocks with its separators as one byte each."""
    separator, mark = separator_of(file, options).encode(), _mark(file, options).encode()
    for block in blocks.blocks() if isinstance(blocks, TextFile) else blocks:
        if separator != mark and mark in block:
            raise InputError(f"{file.url}: holds the byte 0x1F, which cannot be told from a separator of several.")
        yield block if separator == mark else block.replace(separator, mark)


def _first_row(start: bytes, mark: str, quote: str) -> tuple[list[str], int]:
    """The fields of the first row and its size."""
    lines = start.splitlines(keepends=True)  # of bytes: at line ends only
    size = len(lines[0])
    if quote != "none":
        reader = csv.reader(
            (line.decode(UTF8, "surrogateescape") for line in lines),
            delimiter=mark,
            quotechar='"' if quote == "auto" else quote,
            strict=True,
        )
        with suppress(csv.Error):
            fields = next(reader)
            return fields, sum(map(len, lines[: reader.line_num]))
    return lines[0].rstrip(b"\r\n").decode(UTF8, "surrogateescape").split(mark), size


def _is_value(name: str) -> bool:
    """Whether what stands in the first line is a number, a time or nothing."""
    return bool(re.match(r"-?\d+([.,:\-T ]\d+)*", name.strip()))


def scan_delimited(
    files: Sequence[SourceFile], layout: Layout, options: FileOptions, columns: Sequence[str], path: str | None
) -> pl.LazyFrame:
    """These columns as text, of files that have this layout; with a column of the files' URLs, if `path` names it."""
    if not layout.native:
        schema = {name: pl.String() for name in [*columns, *([path] if path else [])]}
        return register_io_source(partial(_read, files, layout, options, list(columns), path), schema=schema)
    first = files[0]
    urls: Any = first.url if len(files) == 1 else [file.url for file in files]
    frame = pl.scan_csv(
        urls,
        has_header=options.header,
        separator=separator_of(first, options),
        quote_char=layout.quote,
        infer_schema=False,
        glob=False,
        storage_options=store_options(first.url),
        include_file_paths=path,
    )
    return frame.select(*columns, *([path] if path else []))


def _read(
    files: Sequence[SourceFile],
    layout: Layout,
    options: FileOptions,
    columns: list[str],
    path: str | None,
    with_columns: list[str] | None,
    predicate: pl.Expr | None,
    num_rows: int | None,
    batch_size: int | None,
) -> Iterator[pl.DataFrame]:
    """What Polars asks for while a plan runs: block by block, file by file."""
    for file in files:
        for block in _blocks(file, layout, options, columns):
            frame = block.with_columns(pl.lit(file.url).alias(path)) if path else block
            frame = frame.filter(predicate) if predicate is not None else frame
            if num_rows is not None:
                frame = frame.head(num_rows)
                num_rows -= frame.height
            yield frame.select(with_columns) if with_columns is not None else frame
            if num_rows == 0:
                return


def _blocks(file: SourceFile, layout: Layout, options: FileOptions, columns: list[str]) -> Iterator[pl.DataFrame]:
    places = {str(layout.names.index(name)): name for name in columns}
    with TextFile(file, options) as text:
        content = _Fields(text, file, options)
        try:
            reader = pyarrow.csv.open_csv(
                pyarrow.PythonFile(content, mode="r"),
                pyarrow.csv.ReadOptions(column_names=[str(place) for place in range(len(layout.names))]),
                pyarrow.csv.ParseOptions(
                    delimiter=_mark(file, options),
                    quote_char=layout.quote or False,
                    newlines_in_values=layout.quote is not None,
                ),
                pyarrow.csv.ConvertOptions(
                    include_columns=list(places),
                    column_types=dict.fromkeys(places, pyarrow.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
            for batch in reader:
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield frame.rename(places)
        except pyarrow.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            if "UTF8" in str(error):
                raise InputError(f"{file.url}: is not UTF-8; set encoding, such as {ENCODINGS}.") from None
            raise InputError(f"{file.url}: cannot be read ({error}).") from None


class _Fields(io.RawIOBase):
    """The rows of a file behind its header, with separators of one byte."""

    def __init__(self, text: TextFile, file: SourceFile, options: FileOptions) -> None:
        super().__init__()
        self._blocks = _with_marks(text, file, options)
        self._skip = header_of(file, options).size
        self._rest = b""

    def read(self, size: int | None = -1) -> bytes:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return b""
            self._rest, self._skip = block[self._skip :], max(0, self._skip - len(block))
        size = len(self._rest) if size is None or size < 0 else size
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def readable(self) -> bool:
        return True
