"""Count the fields of every row of a CSV, without reading any: once with quotes around fields, once with quotes as text.

A quote opens a field where it stands behind a separator or a line end, and closes it before one; two in a row within a
field are one that is meant. Any other quote is astray: text, for readers that mind only those at the beginning of fields.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LONGEST = 1 << 30  # bytes of a field; Python's own limit is 131,072
END, RETURN = ord("\n"), ord("\r")
Places = NDArray[np.intp]
Bytes = NDArray[np.uint8]


@dataclass
class Rows:
    """Rows that were counted in one way, and the first that has not as many fields as it should."""

    fields: int
    rows: int = 0
    blank: int = 0
    wrong: tuple[int, int] | None = None
    """A line, from 1, and the fields found there."""
    astray: int | None = None
    """The first line with a quote that neither opens nor closes a field."""
    spans: int | None = None
    """The first line of a row that goes over several."""
    last_line: int = 0
    _separators: int = 0
    _begun: int | None = None

    @property
    def fits(self) -> bool:
        """Whether all rows have their fields, and no quote is astray."""
        return self.wrong is None and self.astray is None

    def add(self, content: Bytes, hits: Places, lines: Places, first: int) -> None:
        """Rows of a block: its separators and line ends that count, all its line ends, and the number of its first line."""
        ends = np.flatnonzero(content[hits] == END)
        if not len(ends):
            self._begun = first if self._begun is None else self._begun
            self._separators += len(hits)
            return
        counts = np.diff(ends, prepend=-1) - 1
        counts[0] += self._separators
        stops = hits[ends]
        starts = np.concatenate(([0], stops[:-1] + 1))
        length = stops - starts
        blank = (counts == 0) & ((length == 0) | ((length == 1) & (content[stops - 1] == RETURN)))
        blank[0] &= self._begun is None
        wrong = (counts + 1 != self.fields) & ~blank
        if self.wrong is None and wrong.any():
            row = int(np.argmax(wrong))
            self.wrong = self._line(starts, lines, first, row), int(counts[row]) + 1
        if self.spans is None and (self._begun is not None or len(lines) > len(ends)):
            own = np.searchsorted(lines, stops) - np.searchsorted(lines, starts)
            row = 0 if self._begun is not None else int(np.argmax(own > 0))
            self.spans = self._line(starts, lines, first, row) if self._begun is not None or own.any() else None
        self.rows += len(ends) - int(blank.sum())
        self.blank += int(blank.sum())
        last = int(stops[-1]) + 1
        self._separators = len(hits) - 1 - int(ends[-1])
        self._begun = first + int(np.searchsorted(lines, last)) if last < len(content) else None

    def _line(self, starts: Places, lines: Places, first: int, row: int) -> int:
        if row == 0 and self._begun is not None:
            return self._begun
        return first + int(np.searchsorted(lines, starts[row]))


@dataclass
class Count:
    """What a file's rows are in both ways; `quoted` is None where no quote opens a field."""

    plain: Rows
    quoted: Rows | None = None
    is_utf8: bool = True
    lines: int = 0
    _inside: bool = False
    _opened: int = 0
    _before: int | None = None  # the first line with a quote, before one opened a field: it is astray
    _decoder: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8"))

    def add(self, block: bytes, separator: int, quote: int | None) -> None:
        """Count a block of whole lines."""
        content = np.frombuffer(block, np.uint8)
        if self.is_utf8 and (content.max(initial=0) > 127 or self._decoder.getstate()[0]):
            try:
                self._decoder.decode(block)
            except UnicodeDecodeError:
                self.is_utf8 = False
        hits = np.flatnonzero((content == separator) | (content == END))
        lines = hits[content[hits] == END]
        first = self.lines + 1
        quotes = np.flatnonzero(content == quote) if quote is not None and quote in block else None
        if quotes is not None and self.quoted is None and _opens(content, quotes, separator).any():
            self.quoted = Rows(self.plain.fields, self.plain.rows, self.plain.blank, self.plain.wrong, self._before)
        if quotes is not None and self.quoted is None and self._before is None:
            self._before = first + int(np.searchsorted(lines, quotes[0]))
        self.plain.add(content, hits, lines, first)
        if self.quoted and self.quoted.astray is None:
            self._add_quoted(content, quotes if quotes is not None else hits[:0], hits, lines, separator)
        self.lines += len(lines)

    def _add_quoted(self, content: Bytes, quotes: Places, hits: Places, lines: Places, separator: int) -> None:
        assert self.quoted is not None
        inside = (np.arange(len(quotes)) + self._inside) % 2 == 1
        before = content[np.maximum(quotes - 1, 0)]
        after = content[np.minimum(quotes + 1, len(content) - 1)]
        quote = content[quotes]
        astray = np.where(
            inside,
            (after != separator) & (after != END) & (after != RETURN) & (after != quote),
            (before != separator) & (before != END) & (before != quote) & (quotes > 0),
        )
        first = self.lines + 1
        opening = quotes[~inside]
        if astray.any():
            place = int(np.argmax(astray))
            # Text behind a closing quote: the one that opened the field is the odd one.
            from_before = bool(inside[place]) and place == 0
            odd = quotes[place - 1] if inside[place] and place else quotes[place]
            self.quoted.astray = self._opened if from_before else first + int(np.searchsorted(lines, odd))
            return
        outside = (np.searchsorted(quotes, hits) + self._inside) % 2 == 0
        self.quoted.add(content, hits[outside], lines, first)
        if len(opening):
            self._opened = first + int(np.searchsorted(lines, opening[-1]))
        self._inside ^= bool(len(quotes) % 2)

    def close(self) -> None:
        """At the end of the file: a quote may still be open."""
        if self.quoted and self.quoted.astray is None and self._inside:
            self.quoted.astray = self._opened


def count_fields(blocks: Iterable[bytes], fields: int, separator: int, quote: int | None) -> Count:
    """The rows of a file, given as blocks of whole lines, that should have so many fields."""
    count = Count(Rows(fields))
    for block in blocks:
        count.add(block if block.endswith(b"\n") else block + b"\n", separator, quote)
    count.close()
    return count


def count_leniently(blocks: Iterable[bytes], fields: int, separator: str, quote: str) -> Rows:
    """The rows where quotes count at the beginning of fields only, and others are text; slower, and the last resort."""
    csv.field_size_limit(LONGEST)
    reader = csv.reader(_lines(blocks), delimiter=separator, quotechar=quote, strict=True)
    rows = Rows(fields)
    try:
        for row in reader:
            if row and len(row) != fields:
                rows.wrong = rows.last_line + 1, len(row)
                return rows
            if row and reader.line_num > rows.last_line + 1 and rows.spans is None:
                rows.spans = rows.last_line + 1
            rows.rows, rows.blank = rows.rows + bool(row), rows.blank + (not row)
            rows.last_line = reader.line_num
    except csv.Error:
        rows.astray = rows.last_line + 1
    return rows


def looks_quoted(blocks: Iterable[bytes], separator: int, quote: int) -> bool:
    """Whether a field, quotes being text, both begins and ends with one: then they are no text."""
    for block in blocks:
        content = np.frombuffer(block if block.endswith(b"\n") else block + b"\n", np.uint8)
        quotes = np.flatnonzero(content == quote)
        opening = quotes[_opens(content, quotes, separator)]
        hits = np.flatnonzero((content == separator) | (content == END))
        stops = hits[np.searchsorted(hits, opening)]
        stops = np.where((content[stops] == END) & (content[stops - 1] == RETURN), stops - 1, stops)
        if ((content[stops - 1] == quote) & (stops - 1 > opening)).any():
            return True
    return False


def _opens(content: Bytes, quotes: Places, separator: int) -> NDArray[np.bool_]:
    before = content[np.maximum(quotes - 1, 0)]
    return np.asarray((before == separator) | (before == END) | (quotes == 0))


def _lines(blocks: Iterable[bytes]) -> Iterator[str]:
    for block in blocks:
        yield from io.StringIO(block.decode("utf-8", "surrogateescape"), newline="\n")
