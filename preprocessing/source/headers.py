"""The first line of a CSV: its columns, what separates them, and what to set where it looks like no header."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from preprocessing.source.listing import SourceFile
from preprocessing.source.text import ENCODINGS, UTF8, TextFile
from schemas.dataset import FileOptions
from schemas.errors import InputError

UNIT = "\x1f"  # stands for separators of several characters
CACHED = 1 << 18  # bytes that are worked on at a time: more would not stay in the cache of a processor
GUESSES = (";", "\t", "|", ",")


@dataclass(frozen=True)
class Header:
    """The columns of a file and how many bytes of its text they take; no names: there is nothing in the file."""

    names: tuple[str, ...]
    size: int


def separator_of(file: SourceFile, options: FileOptions) -> str:
    """What is between fields: as stated, a tab in .tsv, else a comma."""
    return options.separator or ("\t" if ".tsv" in file.path.lower().rsplit("/", 1)[-1] else ",")


def mark_of(file: SourceFile, options: FileOptions) -> str:
    """The separator as one byte."""
    separator = separator_of(file, options)
    return separator if len(separator.encode()) == 1 else UNIT


def with_marks(blocks: TextFile | Iterable[bytes], file: SourceFile, options: FileOptions) -> Iterator[bytes]:
    """The file's blocks with its separators as one byte each."""
    separator, mark = separator_of(file, options).encode(), mark_of(file, options).encode()
    for block in blocks.blocks(CACHED) if isinstance(blocks, TextFile) else blocks:
        if separator != mark and mark in block:
            raise InputError(
                f"{file.url}: holds the byte 0x1F, which is what a separator of several characters is read as."
            )
        yield block if separator == mark else block.replace(separator, mark)


@lru_cache(1 << 16)
def header_of(file: SourceFile, options: FileOptions) -> Header:
    """The names in the first line that is not empty, or, without a header, column_1, column_2, ...

    Raises:
        InputError: for a file that cannot be unpacked or is not in the encoding.
    """
    with TextFile(file, options) as text:
        start = b""
        for block in text.blocks(CACHED):
            start += block
            if start.strip(b"\r\n \t\0"):
                break
        else:
            return Header((), len(start))
        if b"\0" in start[:1000]:
            raise InputError(f"{file.url}: its text holds zero bytes; set encoding, such as utf-16 or utf-16-le.")
    if b"\r\r\n" in start[: start.find(b"\n") + 1]:
        raise InputError(
            f"{file.url}: its first line ends with \\r\\r\\n, a line end written twice; write it with \\r\\n or \\n."
        )
    begin = len(start) - len(start.lstrip(b"\r\n"))
    start = next(with_marks([start], file, options))
    fields, size = _first_row(start[begin:], mark_of(file, options), options.quote)
    try:
        names = [name.encode(UTF8, "surrogateescape").decode(UTF8) for name in fields]
    except UnicodeDecodeError:
        raise InputError(f"{file.url}: its first line is not UTF-8; set encoding, such as {ENCODINGS}.") from None
    if not options.header:
        return Header(tuple(f"column_{place}" for place in range(1, len(names) + 1)), 0)
    return Header(tuple(names), begin + size)


def hint_of(names: Sequence[str], file: SourceFile, options: FileOptions) -> str:
    """What to set, where the names of columns look like none; else nothing."""
    used = separator_of(file, options)
    if len(names) == 1:
        guess = next((mark for mark in GUESSES if mark != used and mark in names[0]), None)
        if guess:
            return f" The first line has one field: set separator: {guess!r}."
    if options.header and any(_is_value(name) for name in names):
        return " The first line looks like a row: set header: false and map columns by place, such as item_id: 3."
    return ""


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
