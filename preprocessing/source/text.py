"""Text files as a stream of UTF-8 bytes, however they are packed and encoded, and as blocks of whole lines."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import fsspec
import polars as pl
import pyarrow
from polars.io.plugins import register_io_source

from preprocessing.source.away import answering
from preprocessing.source.listing import SourceFile, is_remote
from schemas.dataset import FileOptions
from schemas.errors import InputError, reason

BLOCK = 1 << 22  # bytes read at a time
UTF8 = "utf-8"
ENCODINGS = "latin-1 or windows-1252"  # what messages propose
UTF8_MARK = codecs.BOM_UTF8
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class TextFile(io.RawIOBase):
    """The bytes of a text file, unpacked and turned into UTF-8, without a mark at their beginning.

    `packed` and `encoding` say how the file is; a file in UTF-8 is passed on as it is, be it valid or not.

    Raises:
        InputError: while reading, for bytes that the encoding does not have and packed files that end too early.
    """

    def __init__(self, file: SourceFile, options: FileOptions) -> None:
        """Open the file; close it with `with`."""
        super().__init__()
        self.file = file
        self._source = _open(file.url)
        start = self._source.read(4)
        self._source.seek(0)
        self.packed, self._content = _unpacked(start, self._source)
        self._rest = self._raw(4)
        self.encoding = options.encoding
        if self._rest.startswith(UTF8_MARK):
            self._rest, self.encoding = self._rest[len(UTF8_MARK) :], UTF8
        elif self._rest.startswith(UTF16_MARKS) and self.encoding == UTF8:
            self.encoding = "utf-16"
        self._decoder = None if self.encoding == UTF8 else codecs.getincrementaldecoder(self.encoding)()

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes, more or less, but none only at the end."""
        while True:
            raw = self._rest + self._raw(BLOCK if size is None or size < 0 else max(size - len(self._rest), 1))
            self._rest = b""
            if self._decoder is None:
                return raw
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                raise InputError(f"{self.file.url}: is not {self.encoding} ({error.reason}); set encoding.") from None
            if text or not raw:
                return text.encode()

    def readable(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Close the file too."""
        if not self.closed:
            self._source.close()
        super().close()

    def blocks(self, size: int = BLOCK) -> Iterator[bytes]:
        """All bytes, cut behind line ends."""
        rest = b""
        while block := self.read(size):
            cut = block.rfind(b"\n") + 1
            if cut:
                yield rest + block[:cut]
                rest = block[cut:]
            else:
                rest += block
        if rest:
            yield rest

    def _raw(self, size: int) -> bytes:
        try:
            with answering(self.file.url):
                return self._content.read(size)
        except (EOFError, OSError, pyarrow.ArrowException) as error:
            raise InputError(f"{self.file.url}: cannot be unpacked ({error}).") from None


def _open(url: str) -> IO[bytes]:
    if not is_remote(url):
        return Path(url).open("rb")
    with answering(url):
        # As when listing: nothing is remembered of a store from earlier.
        store, place = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
        try:
            content: IO[bytes] = store.open(place, "rb")
        except (FileNotFoundError, PermissionError) as error:  # a plan that runs would not say of which file
            raise InputError(f"{url}: cannot be read ({reason(error)}).") from None
        return content


def _unpacked(start: bytes, source: Any) -> tuple[str, Any]:
    """How a file is packed, by its first bytes, which no ending can belie; and its content."""
    if start.startswith(b"\x1f\x8b"):
        return "gzip", gzip.GzipFile(fileobj=source)
    if start.startswith(b"BZh"):
        return "bzip2", bz2.BZ2File(source)
    if start == b"\x28\xb5\x2f\xfd":
        return "zstd", pyarrow.CompressedInputStream(pyarrow.PythonFile(source, mode="r"), "zstd")
    return "", source


def on_demand(
    frames: Callable[[list[str]], Iterator[tuple[SourceFile, pl.DataFrame]]],
    schema: Mapping[str, pl.DataType],
    path: str | None,
) -> pl.LazyFrame:
    """A lazy frame of what `frames` gives of wanted columns, block by block while a plan runs.

    `schema` is that of the frames; with a column of the files' URLs, if `path` names it.
    """

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, num_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        narrow = [name for name in schema if columns is None or predicate is not None or name in columns]
        for file, block in frames(narrow or list(schema)[:1]):
            frame = block.with_columns(pl.lit(file.url).alias(path)) if path else block
            frame = frame.filter(predicate) if predicate is not None else frame
            if num_rows is not None:
                frame = frame.head(num_rows)
                num_rows -= frame.height
            yield frame.select(columns) if columns is not None else frame
            if num_rows == 0:
                return

    return register_io_source(read, schema={**schema, **({path: pl.String()} if path else {})})
