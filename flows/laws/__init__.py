"""Laws that parts obey, one module a kind: `overnight check` holds people's own parts to them, tests/laws Overnight's.

A law is a function that takes a trial of a part and raises BrokenLawError; the first line of its docstring is the law.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

Law = Callable[[Any], None]


class BrokenLawError(Exception):
    """A law that a part does not keep, and by what."""


class NotTriedError(Exception):
    """Why a part could not be tried, and what would let it."""


def require(kept: bool, otherwise: str) -> None:
    """Raise BrokenLawError with what is otherwise, unless the law is kept."""
    if not kept:
        raise BrokenLawError(otherwise)


def broken(laws: Iterable[Law], trial: Any, explain: Callable[[BaseException], str] = repr) -> list[str]:
    """What a trial breaks, a line each. Whoever breaks the first law, or fails under it, is not held to the others."""
    lines: list[str] = []
    for place, law in enumerate(laws):
        try:
            law(trial)
        except BrokenLawError as failure:
            lines.append(f"{sentence(law)} {failure}")
        except Exception as error:  # somebody else's code: whatever it raises is the answer
            lines.append(f"{sentence(law)} It fails: {explain(error)}")
        if lines and place == 0:
            break
    return lines


def sentence(law: Law) -> str:
    """The law in words."""
    return (law.__doc__ or law.__name__).partition("\n")[0]


def missing_column(error: Exception) -> str | None:
    """The column that an error of Polars or of ours says is missing."""
    found = re.search(
        r"""(?:column|field) ['"]?([^'";,]+?)['"]?(?:[.;,]| not found|$)""", str(error).partition("\n")[0]
    )
    return found[1] if found else None
