"""What a few rows cost to prepare, as counts: plans that Polars runs, files that are written and read, by the number of days."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.dataframe.group_by import GroupBy

from schemas import artifacts
from tests.preprocessing.small import at, dataset_of, run, write

PLANS = ("select", "filter", "with_columns", "join", "sort", "unique", "explode", "unnest", "drop_nulls")
FEW, MANY = 2, 12  # days


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

    source.mkdir()
    write(source, [(user, "xyz"[minute], at(day, 12, minute)) for day in range(days) for minute, user in enumerate("aab")])
    dataset = dataset_of(source, sessions={"min_length": 1})
    run(source, dataset, now=at(40))  # what a process does once
    with monkeypatch.context() as monkeypatch:
        for name in PLANS:
            count(pl.DataFrame, name, "plans")
        for owner, name in ((pl.LazyFrame, "collect"), (pl, "collect_all"), (GroupBy, "agg")):
            count(owner, name, "plans")
        count(pl.DataFrame, "write_parquet", "written")
        count(pl, "read_parquet", "read")
        count(artifacts.Artifacts, "write", "artifacts")
        run(source, dataset_of(source, sessions={"min_length": 1, "max_length": 9}), now=at(40))
    return counts


def test_a_day_more_of_few_rows_costs_its_files_and_hardly_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (counted(monkeypatch, tmp_path / str(days), days) for days in (FEW, MANY))
    further = {name: (many[name] - few[name]) / (MANY - FEW) for name in many}
    print(few, further)
    assert few["plans"] <= 0
