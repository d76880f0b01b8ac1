"""What a few rows cost to prepare, as counts: plans that Polars runs, files that are written and read, however many days."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.dataframe.group_by import GroupBy

from schemas.artifacts import Artifacts
from tests.preprocessing.small import at, run, write

PLANS = ("select", "filter", "with_columns", "join", "sort", "unique", "explode", "unnest", "drop_nulls")
FEW, MANY = 2, 12  # days
MOST_PLANS = 145


def counted(monkeypatch: pytest.MonkeyPatch, source: Path, days: int) -> Counter[str]:
    """What is done to prepare three events a day: `plans`, `written` and `read` Parquet files, `artifacts`."""
    counts, inside = Counter[str](), threading.local()

    def count(owner: Any, name: str, what: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def called(*arguments: Any, **options: Any) -> Any:
            if getattr(inside, what, False):  # of one that calls another, the outer one counts
                return function(*arguments, **options)
            counts[what] += 1
            setattr(inside, what, True)
            try:
                return function(*arguments, **options)
            finally:
                setattr(inside, what, False)

        monkeypatch.setattr(owner, name, called)

    rows = [(user, "xyz"[minute], at(day, 12, minute)) for day in range(days) for minute, user in enumerate("aab")]
    for place in (source / "before", source / "counted"):  # what a process does once is done before
        place.mkdir(parents=True)
        write(place, rows)
    run(source / "before", now=at(40))
    with monkeypatch.context() as monkeypatch:
        for name in PLANS:
            count(pl.DataFrame, name, "plans")
        for owner, name in ((pl.LazyFrame, "collect"), (pl, "collect_all"), (GroupBy, "agg")):
            count(owner, name, "plans")
        count(pl.DataFrame, "write_parquet", "written")
        count(pl, "read_parquet", "read")
        count(Artifacts, "write", "artifacts")
        run(source / "counted", now=at(40))
    return counts


def test_a_few_rows_take_few_plans_and_nothing_that_was_written_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (counted(monkeypatch, tmp_path / str(days), days) for days in (FEW, MANY))
    assert few["plans"] <= MOST_PLANS
    assert (few["read"], many["read"]) == (0, 0)
    further = {name: (many[name] - few[name]) / (MANY - FEW) for name in ("plans", "artifacts", "written")}
    assert further == {"plans": 0, "artifacts": 1, "written": 2}  # of a day: its profile, and what it was made of
