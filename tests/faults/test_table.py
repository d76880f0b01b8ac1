"""docs/operating.md lists every fault that a test replays."""

from __future__ import annotations

from tests.faults.table import PAGE, faults, written


def test_the_page_has_the_table_of_the_tests() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run: python -m tests.faults.table"
    names = [name for name, _, _ in faults()]
    assert len(names) >= 25 and len(set(names)) == len(names)
