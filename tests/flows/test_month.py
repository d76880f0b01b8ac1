"""The page of a simulated month: what its nights did, as a table and a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """`benchmarks/month.py` and its page, which are no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import month
    import month_page

    return month, month_page


@pytest.mark.parametrize("nights", [8, 9, 13, 30])
def test_all_that_may_happen_happens_once_and_not_in_the_first_night(nights: int, modules: tuple[Any, Any]) -> None:
    month, _ = modules
    plan = month.Month(nights, 100).plan
    assert sorted(plan.values()) == sorted(month.PLAN.values()) and min(plan) > 1 and max(plan) <= nights


def test_the_page_compares_the_same_days_and_says_what_happened(modules: tuple[Any, Any]) -> None:
    _, page = modules
    rows = [
        page.Night("2026-03-09", "", "promoted", "first", frozen=(0.2, 0.1, 0.3, 100), seconds=20.4, cpu=11, disk=2.04),
        page.Night("2026-03-10", "the day's file never comes", "nothing new", "No full day", disk=2.0),
        page.Night(
            "2026-03-11",
            "",
            "kept",
            "worse",
            ["price has drifted", "a new column"],
            (0.3, 0.2, 0.4, 50),
            (0.1, 0.05, 0.2, 50),
        ),
    ]
    text = page.page_of(rows, 90, 30, 1_000)
    assert "| 2026-03-09 |  | promoted |  | 0.2000 | 20 | 11 | 2.0 |" in text
    assert "**0.3000**, the one never retrained **0.1000**" in text and "above on 1 of 1 days" in text
    assert "- **2026-03-10**, the day's file never comes: No full day" in text and "worse" not in text
    assert "- **2026-03-11**: a new column" in text and "has drifted" not in text
    drawn = ET.fromstring(page.picture_of(rows))
    lines = [line.get("points", "").split() for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(points) for points in lines] == [1, 2, 3], "in service, never retrained, and the size of the root"
