"""Stable hashes: equal values hash equally whatever their storage, and the numbers never change."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.hashing import BASE, stable_hash
from schemas.errors import InputError


def one_by_one(value: str | int, seed: int) -> int:
    """The definition, in Python's own integers."""
    if isinstance(value, str):
        value = sum((byte + 1) * BASE**place for place, byte in enumerate(value.encode()))
    return finalise(value % 2**64 ^ finalise((seed + BASE) % 2**64))


def finalise(number: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        number ^= number >> 33
        number = number * factor % 2**64
    return number ^ number >> 33


@given(st.lists(st.none() | st.text(max_size=9)), st.integers(0, 2**64))
@settings(deadline=None)
def test_texts_hash_as_defined(texts: list[str | None], seed: int) -> None:
    expected = [None if text is None else one_by_one(text, seed) for text in texts]
    assert stable_hash(pl.Series("id", texts, dtype=pl.String), seed).to_list() == expected


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
@settings(deadline=None)
def test_integers_hash_as_defined(numbers: list[int | None]) -> None:
    expected = [None if number is None else one_by_one(number, 0) for number in numbers]
    assert stable_hash(pl.Series("id", numbers, dtype=pl.Int64)).to_list() == expected


def test_hashes_never_change() -> None:
    texts, numbers = pl.Series(["ann", "", None, "zoë"]), pl.Series([0, 7, -1])
    assert stable_hash(texts).to_list() == [7455657728352907723, 7175312947680778460, None, 5838360097099909951]
    assert stable_hash(numbers, seed=1).to_list() == [14339430525631324142, 10729825269233264005, 727920129857799534]


def test_width_and_slicing_do_not_matter() -> None:
    assert (
        stable_hash(pl.Series([7], dtype=pl.Int16)).to_list() == stable_hash(pl.Series([7], dtype=pl.UInt64)).to_list()
    )
    texts = pl.Series([f"user {number}" for number in range(250_000)])
    whole = stable_hash(texts)
    assert stable_hash(texts.slice(123_456, 5)).to_list() == whole.slice(123_456, 5).to_list()
    assert stable_hash(texts.head(9).append(texts.slice(9))).equals(whole)
    assert whole.n_unique() == len(texts)
    tenths = (whole % 10).value_counts()["count"]
    assert tenths.min() > 24_000 and tenths.max() < 26_000


def test_only_ids_are_hashed() -> None:
    with pytest.raises(InputError, match="price holds Float64"):
        stable_hash(pl.Series("price", [1.5]))
