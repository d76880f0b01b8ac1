"""What a day looks like and how it differs from the days before: counted exactly, however rows are divided."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing import frames
from preprocessing.execution.run import Workers
from preprocessing.features.compile import compile_features
from preprocessing.frames import CPU
from preprocessing.output.profile import counts, drift
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import Dataset
from tests.gpu import GPU, translating
from tests.preprocessing.small import at, dataset_of, run, said, write
from tests.slow import examples

COLUMNS = ("user_id", "item_id", "timestamp", "brand", "price", "made")
DAYS = [str(date(2024, 1, day)) for day in (1, 2, 3)]


def dataset_with(folder: Path | str, **parts: Any) -> Dataset:
    features = {
        "brand": "category",
        "price": {"encode": ["log1p", "standardize"]},
        "hour": {"column": "timestamp", "encode": "hour"},
    }
    return dataset_of(folder, columns=COLUMNS[3:], features=features, **parts)


def visits(
    day: int, hour: int = 12, brand: str | None = "acme", price: float | None = 10.0, users: int = 4
) -> list[Any]:
    """Each user sees x, then y a minute later."""
    return [
        (f"u{user}", item, at(day, hour, minute), brand, price, None)
        for user in range(users)
        for minute, item in enumerate("xy")
    ]


def profile_of(manifest: Manifest, day: str) -> pl.DataFrame:
    for name in manifest.parents:
        found = Artifacts(manifest.root).get(name)
        if found.facts["day"] == day:
            return pl.read_parquet(found.folder / "profile.parquet")
    raise AssertionError(f"no {day}")


def counted(table: pl.DataFrame, column: str) -> dict[tuple[str, Any], int]:
    rows = (
        table.filter(column=column).select("kind", pl.coalesce("value", pl.col("at").cast(pl.String)), "count").rows()
    )
    return {(kind, what): count for kind, what, count in rows}


def test_a_day_is_counted_by_hour_length_value_and_number(tmp_path: Path) -> None:
    odd = [
        ("v", item, at(0, 14, minute), None, price, None)
        for minute, (item, price) in enumerate(zip("xyx", (0.0, -5.0, math.nan), strict=True))
    ]
    write(tmp_path, visits(0) + odd + visits(1) + visits(2), COLUMNS)
    table = profile_of(run(tmp_path, dataset_with(tmp_path, time_zone="Asia/Kolkata")), DAYS[0])
    assert counted(table, counts.HOURS) == {("hour", "17.0"): 8, ("hour", "19.0"): 3}
    assert counted(table, counts.LENGTHS) == {("length", "2.0"): 4, ("length", "3.0"): 1}
    assert counted(table, "brand") == {("value", "acme"): 8, ("missing", None): 3, ("distinct", None): 1}
    assert counted(table, "price") == {
        ("number", "10.0"): 8,
        ("number", "0.0"): 1,
        ("number", "-5.01"): 1,  # to a hundredth of a power of ten
        ("missing", None): 1,
    }
    assert counted(table, "item_id") == {("value", "x"): 6, ("value", "y"): 5, ("distinct", None): 2}


def test_rare_values_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST_VALUES", 2)
    brands = [visits(0, 9, "b"), visits(0, 15, "a"), visits(0, 18, "c"), visits(0, 20, "d", users=9)]
    write(tmp_path, [row for rows in (*brands, visits(1), visits(2)) for row in rows], COLUMNS)
    table = profile_of(run(tmp_path, dataset_with(tmp_path), until=date(2024, 1, 3)), DAYS[0])
    assert counted(table, "brand") == {("value", "d"): 18, ("value", "a"): 8, ("rest", None): 16, ("distinct", None): 4}


def test_times_and_lists_have_profiles_too(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "day": [date(2024, 1, 1)] * 3,
            "item_id": ["x", "y", "x"],
            "made": [at(0), at(40), None],
            "timestamp": [at(0)] * 3,
        }
    )
    dataset = dataset_of(tmp_path, columns=("made",), features={"made": {"encode": "weekday"}}, split="leave_one_out")
    sessions = pl.DataFrame({"day": [date(2024, 1, 1)], "length": [3]})
    table = counts.count(rows, sessions, dataset, compile_features(dataset, rows.schema), CPU)
    assert counted(table, "made") == {
        ("month", f"{2024 * 12}.0"): 1,
        ("month", f"{2024 * 12 + 1}.0"): 1,
        ("missing", None): 1,
    }
    assert counted(table, "item_id") == {("value", "x"): 2, ("value", "y"): 1}  # no encoder has seen all of them


def compared_of(now: dict[str, int], before: dict[str, int]) -> pl.DataFrame:
    def table(day: date, values: dict[str, int]) -> pl.DataFrame:
        rows = [(day, "brand", "value", value, None, count) for value, count in values.items()]
        return pl.DataFrame(rows, schema=counts.SCHEMA, orient="row")

    return drift.compare(table(date(2024, 1, 2), now), table(date(2024, 1, 1), before), 7)


def test_the_index_is_what_its_formula_says() -> None:
    found = drift.drift(compared_of({"a": 60, "c": 40}, {"a": 150, "b": 50})).row(0, named=True)
    groups = [(60, 150), (0, 50), (40, 0)]  # a, b, all others
    shares = [((n + 0.5) / 101.5, (m + 0.5) / 201.5) for n, m in groups]
    assert found["psi"] == pytest.approx(sum((p - q) * math.log(p / q) for p, q in shares))
    assert found["by_chance"] == pytest.approx((1 / 100 + 1 / 200) * (2 + 3.09 * 2))
    assert drift.drift(compared_of({"a": 5}, {})).is_empty()


def test_a_day_unlike_the_days_before_is_warned_about(tmp_path: Path) -> None:
    days = [*visits(0, users=40), *visits(1, users=40), *visits(2, brand="<b>bolt</b>", price=500.0, users=40)]
    write(tmp_path, days, COLUMNS)
    lines: list[str] = []
    manifest = run(tmp_path, dataset_with(tmp_path), progress=said(lines))
    assert manifest.facts["drift"].keys() == {"brand", "price", "item_id", counts.HOURS, counts.LENGTHS}
    assert [line.partition(" has drifted")[0] for line in manifest.facts["warnings"]] == ["brand", "price"]
    assert sum(line.startswith(f"{DAYS[2]}: ") and "has drifted" in line for line in lines) == 2


def test_few_events_differ_by_chance(tmp_path: Path) -> None:
    mostly, rarely = [*visits(0), *visits(1)], [*visits(0, 15, "bolt", users=1), *visits(2, users=1)]
    write(tmp_path, [*mostly, *rarely, *visits(2, 15, "bolt", users=1)], COLUMNS)
    facts = run(tmp_path, dataset_with(tmp_path), until=date(2024, 1, 3)).facts
    assert facts["drift"]["brand"] > 0.2 and not any("brand" in line for line in facts["warnings"])


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from("xyz"),
        st.integers(0, 3 * 24 * 60 - 1).map(lambda minute: at(0, 0) + timedelta(minutes=minute)),
        st.sampled_from(["acme", "bolt", None]),
        st.sampled_from([1.0, 2.5, 0.0, -4.0, None, math.inf]),
        st.none(),
    ),
    max_size=40,
)


@examples(6)
@given(EVENTS, st.randoms(use_true_random=False))
def test_profiles_do_not_depend_on_how_rows_are_divided(rows: list[Any], order: random.Random) -> None:
    rows = visits(0) + visits(1) + visits(2) + rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def profiles(where: str, untils: Sequence[int], workers: Workers) -> list[Any]:
            (folder / where).mkdir()
            order.shuffle(rows)
            write(folder / where, rows, COLUMNS)
            dataset = dataset_with(folder / where)
            for until in untils:
                manifest = run(folder / where, dataset, until=date(2024, 1, until), workers=workers)
            found = [Artifacts(manifest.root).get(day) for day in manifest.parents]
            return [
                (
                    day.facts["drift"],
                    day.facts["warnings"],
                    *(file.sha256 for file in day.files if file.path.startswith("profile")),
                )
                for day in found
            ]

        whole = profiles("whole", [3], Workers())
        assert whole == profiles("by day", [2, 3], Workers())
        assert whole == profiles("divided", [3], Workers(min_buckets=3))


@pytest.mark.gpu_plans
def test_rows_are_counted_with_what_a_gpu_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    monkeypatch.setattr(frames, "run", translating(refused))
    rows = pl.DataFrame(
        visits(0), schema=list(COLUMNS), orient="row", schema_overrides={"made": pl.Datetime("us", "UTC")}
    )
    rows = rows.with_columns(day=date(2024, 1, 1))
    dataset = dataset_with(tmp_path, split="leave_one_out")
    sessions = pl.DataFrame({"day": [date(2024, 1, 1)], "length": [3]})
    counts.count(rows, sessions, dataset, compile_features(dataset, rows.schema), GPU)
    assert refused == []
