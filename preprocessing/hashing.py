"""Hash values to 64 bits that are the same on every machine, engine and version: for samples, splits and buckets.

Integers go through the finaliser of MurmurHash3. A text is first summed up as a polynomial of its UTF-8 bytes, modulo 2**64.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from schemas.errors import InputError

BASE = 0x9E3779B97F4A7C15  # odd, so that no byte's weight ever becomes 0
BLOCK = 100_000  # texts summed up at once: their bytes' weights take 16 times their size


def stable_hash(values: pl.Series, seed: int = 0) -> pl.Series:
    """UInt64 hashes of integers or texts. Null stays null; another seed gives unrelated hashes.

    Raises:
        InputError: for values of another type.
    """
    if values.dtype.is_integer():
        # Of all widths, 7 is 7; negative ones wrap.
        wide = values if values.dtype == pl.UInt64 else values.cast(pl.Int64)
        numbers = wide.fill_null(0).to_numpy().astype(np.uint64)
    elif values.dtype == pl.String:
        blocks = [_sum_up(values.slice(start, BLOCK)) for start in range(0, len(values), BLOCK)]
        numbers = np.concatenate(blocks or [np.empty(0, np.uint64)])
    else:
        raise InputError(f"{values.name} holds {values.dtype}; a stable hash is taken of integers or text.")
    salt = _finalise(np.array([(seed + BASE) % 2**64], np.uint64))
    hashes = pl.Series(values.name, _finalise(numbers ^ salt), dtype=pl.UInt64)
    return hashes.set(values.is_null(), None) if values.null_count() else hashes


def _sum_up(texts: pl.Series) -> np.ndarray:
    """The sum of (byte + 1) * BASE ** place over each text; 0 for the empty one and null."""
    arrow = texts.fill_null("").rechunk().to_arrow()
    _, offsets_buffer, bytes_buffer = arrow.buffers()
    width = np.int64 if str(arrow.type) == "large_string" else np.int32
    offsets = np.frombuffer(offsets_buffer, width)[arrow.offset : arrow.offset + len(arrow) + 1]
    sums, lengths = np.zeros(len(arrow), np.uint64), np.diff(offsets)
    if not lengths.any():
        return sums
    data = np.frombuffer(bytes_buffer, np.uint8)[offsets[0] : offsets[-1]]
    starts = offsets[:-1] - offsets[0]
    weights = np.full(lengths.max(), BASE, np.uint64)
    weights[0] = 1
    place = np.arange(len(data)) - np.repeat(starts, lengths)
    weighted = np.cumprod(weights)[place]
    weighted *= data.astype(np.uint64) + np.uint64(1)
    some = lengths > 0  # of an empty stretch, reduceat returns the next one's first byte
    sums[some] = np.add.reduceat(weighted, starts[some])
    return sums


def _finalise(numbers: np.ndarray) -> np.ndarray:
    """The 64-bit finaliser of MurmurHash3: every bit of the input moves every bit of the output."""
    numbers = numbers ^ (numbers >> np.uint64(33))
    numbers *= np.uint64(0xFF51AFD7ED558CCD)
    numbers ^= numbers >> np.uint64(33)
    numbers *= np.uint64(0xC4CEB9FE1A85EC53)
    return numbers ^ (numbers >> np.uint64(33))
