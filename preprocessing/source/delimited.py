"""CSV files as lazy frames: by Polars itself where it reads them right, else block by block."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
import pyarrow
import pyarrow.csv

from preprocessing.source.headers import header_of, mark_of, separator_of, with_marks
from preprocessing.source.listing import SourceFile, store_options
from preprocessing.source.quoting import Layout
from preprocessing.source.text import ENCODINGS, TextFile, on_demand
from schemas.dataset import FileOptions
from schemas.errors import InputError

BLOCK_SIZE = 1 << 20  # bytes that are parsed at a time
MOST = 1 << 30


def scan_delimited(
    files: Sequence[SourceFile], layout: Layout, options: FileOptions, columns: Sequence[str], path: str | None
) -> pl.LazyFrame:
    """These columns as text, of files that have this layout; with a column of the files' URLs, if `path` names it."""
    if not layout.native:

        def frames(wanted: list[str]) -> Iterator[tuple[SourceFile, pl.DataFrame]]:
            return ((file, frame) for file in files for frame in _blocks(file, layout, options, wanted))

        return on_demand(frames, dict.fromkeys(columns, pl.String()), path)
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


def _blocks(file: SourceFile, layout: Layout, options: FileOptions, columns: list[str]) -> Iterator[pl.DataFrame]:
    places = {str(layout.names.index(name)): name for name in columns}
    size, given = BLOCK_SIZE, 0
    while True:  # a row longer than a block is read with larger ones, without the rows that were given on
        skip = given
        try:
            for frame in _frames(file, layout, options, places, size):
                rest = frame.slice(skip)
                skip = max(0, skip - frame.height)
                given += rest.height
                if rest.height:
                    yield rest.rename(places)
            return
        except pyarrow.ArrowInvalid as error:
            if "straddling" in str(error) and size < MOST:
                size *= 8
                continue
            if "Empty CSV" in str(error):
                return
            if "UTF8" in str(error):
                raise InputError(f"{file.url}: is not UTF-8; set encoding, such as {ENCODINGS}.") from None
            raise InputError(f"{file.url}: cannot be read ({error}).") from None


def _frames(
    file: SourceFile, layout: Layout, options: FileOptions, places: dict[str, str], size: int
) -> Iterator[pl.DataFrame]:
    with TextFile(file, options) as text:
        reader = pyarrow.csv.open_csv(
            pyarrow.PythonFile(_Fields(text, file, options), mode="r"),
            pyarrow.csv.ReadOptions(column_names=[str(place) for place in range(len(layout.names))], block_size=size),
            pyarrow.csv.ParseOptions(
                delimiter=mark_of(file, options),
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
            yield frame


class _Fields(io.RawIOBase):
    """The rows of a file behind its header, with separators of one byte."""

    def __init__(self, text: TextFile, file: SourceFile, options: FileOptions) -> None:
        super().__init__()
        self._blocks = with_marks(text, file, options)
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
