"""What `make test` leaves out unless OVERNIGHT_SLOW=1: tests that take long, and most cases of large families.

Nothing here needs torch, which not every environment of tests has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest
from hypothesis import settings

Case = TypeVar("Case")
SLOW = bool(os.environ.get("OVERNIGHT_SLOW"))
slow = pytest.mark.skipif(not SLOW, reason="OVERNIGHT_SLOW=1 runs it")


def pared(cases: Iterable[Case], usual: Callable[[Case], bool]) -> list[Case]:
    """Parameters of a test: all cases with OVERNIGHT_SLOW=1, else those for which `usual` holds."""
    return [case for case in cases if SLOW or usual(case)]


def examples(count: int) -> settings:
    """So many examples of Hypothesis with OVERNIGHT_SLOW=1, else a third: every run draws its own."""
    return settings(max_examples=count if SLOW else max(count // 3, 3), deadline=None)
