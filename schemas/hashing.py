"""The hash of one value, as preprocessing hashes columns of them (preprocessing/hashing.py says how it is made)."""

from __future__ import annotations

BASE = 0x9E3779B97F4A7C15
MASK = 2**64 - 1


def hash_value(value: int | str) -> int:
    """64 bits of an integer or a text, the same on every machine and in every version."""
    number = value & MASK if isinstance(value, int) else _sum_up(value)
    return _finalise(number ^ _finalise(BASE))


def _sum_up(text: str) -> int:
    total, weight = 0, 1
    for byte in text.encode():
        total = (total + (byte + 1) * weight) & MASK
        weight = weight * BASE & MASK
    return total


def _finalise(number: int) -> int:
    number ^= number >> 33
    number = number * 0xFF51AFD7ED558CCD & MASK
    number ^= number >> 33
    number = number * 0xC4CEB9FE1A85EC53 & MASK
    return number ^ (number >> 33)
