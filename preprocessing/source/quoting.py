"""How quotes are used in a CSV: around fields, or as text; judged by all of the file.

A reader that skips columns can lose or invent rows where a quote or a separator stands in a column that it skips. So each
file is counted through once before it is read, with quotes around fields and with quotes as text. What gives every row as
many fields as the header has is how it is read; a file that neither way fits is refused with the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from preprocessing.source.fields import Rows, count_fields, count_leniently, looks_quoted
from preprocessing.source.headers import header_of, mark_of, separator_of, with_marks
from preprocessing.source.listing import SourceFile
from preprocessing.source.text import UTF8, TextFile
from schemas.dataset import FileOptions
from schemas.errors import InputError

EXCERPT = 200  # characters of a line that a message repeats


@dataclass(frozen=True)
class Layout:
    """How a file is to be read: files of one layout are read together."""

    names: tuple[str, ...]
    quote: str | None
    native: bool
    """Whether Polars reads it right by itself, without holding it."""


@lru_cache(1 << 16)
def layout_of(file: SourceFile, options: FileOptions) -> Layout:
    """How the file is to be read, judged by all of it.

    Raises:
        InputError: naming the line, when rows do not have the fields of the header however quotes are taken.
    """
    header, mark = header_of(file, options), mark_of(file, options)
    quote = None if options.quote == "none" else '"' if options.quote == "auto" else options.quote
    with TextFile(file, options) as text:
        count = count_fields(
            with_marks(text, file, options), len(header.names), ord(mark), None if quote is None else ord(quote)
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
        return count_leniently(with_marks(text, file, options), fields, mark, quote)


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
            if not looks_quoted(with_marks(text, file, options), ord(mark), ord(quote)):
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
