"""Days that come out the same whatever the nights, and sources, caches and YAML that must not change them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.history.lines import line_of
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts
from schemas.errors import InputError
from tests.cases.test_finished_days import days_of, first, nightly, put, shop, visits
from tests.preprocessing.small import NOW, at, dataset_of, decoded, run, said


def test_sources_whose_files_look_alike_do_not_mix(tmp_path: Path) -> None:
    """Names, sizes and times of writing agree, as after rsync of files of a fixed width; the events do not."""
    for name, item in (("here", "i"), ("there", "j")):
        events = tmp_path / name / "events"
        events.mkdir(parents=True)
        for day in range(3):
            rows = [f"u{user},{item}{user},{at(day, 12, user + more)}" for user in range(3) for more in (0, 5)]
            (events / f"{day}.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
            os.utime(events / f"{day}.csv", ns=(10**18, 10**18))
    root = Artifacts(tmp_path / "root")
    options: dict[str, Any] = {"now": NOW, "progress": lambda progress: None}
    before = prepare(root, shop(tmp_path / "here"), until=first(1), **options)
    with suppress(InputError):  # or all days are those of the other source
        after = prepare(root, shop(tmp_path / "there"), until=first(2), **options)
        assert {item[0] for session in decoded(after) for item in session} == {"j"}
        return
    assert prepare(root, shop(tmp_path / "here"), until=first(1), **options).id == before.id


def test_duplicates_by_columns_are_the_same_day_by_day(tmp_path: Path) -> None:
    """The same users, items and event numbers come back on later days, and the same numbers at other users."""
    rows = [
        (user, item, at(day, hour, minute), minute)
        for day in range(4)
        for user in "ab"
        for hour in (8, 23)
        for minute, item in ((10, "x"), (20, "y"), (30, "x"), (45, "z"))
    ]
    columns = ["user_id", "item_id", "timestamp", "event_id"]
    mapping = {name: name for name in columns}
    for compared in (["user_id", "item_id"], ["event_id"], ["item_id", "event_id"]):
        results = []
        for nights in ([3], [1, 2, 3]):
            folder = tmp_path / "_".join([*compared, str(len(nights))])
            put(folder, "all", rows, columns)
            for last in nights:
                manifest = run(folder, shop(folder, columns=mapping, duplicates=compared), until=first(last))
            results.append((days_of(manifest), decoded(manifest), manifest.facts["dropped"]))
        assert results[0] == results[1]
        assert set(results[0][0]) == {str(first(day)) for day in range(4)}


def test_a_byte_that_the_index_lost_changes_no_day(tmp_path: Path) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    (cache,) = (tmp_path / "artifacts" / "inventories").iterdir()
    table, about = pl.read_parquet(cache), pl.read_parquet_metadata(cache)
    kept = {name: text for name, text in about.items() if name != "ARROW:schema"}
    table.with_columns(pl.col("digest") + 1).write_parquet(cache, metadata=kept)
    lines: list[str] = []
    assert run(tmp_path, shop(tmp_path), progress=said(lines)).id == before.id
    assert not any("again" in line for line in lines)
    cache.unlink()
    (cache / "folder").mkdir(parents=True)
    assert run(tmp_path, shop(tmp_path)).id == before.id and cache.is_file()


def test_a_late_row_has_the_id_that_its_item_got_on_a_later_day(tmp_path: Path) -> None:
    """Item n is new on the fourth day; then a row of the second day that holds it comes late."""
    nightly(tmp_path, 3)
    put(tmp_path, "3", visits(3, items="nx"))
    put(tmp_path, "4", visits(4))
    before = run(tmp_path, shop(tmp_path))
    put(tmp_path, "late", visits(1, "late", 9, "nx"))
    after = run(tmp_path, shop(tmp_path))
    assert sum(session == ["n", "x"] for session in decoded(after)) == 2
    ids = [dict(pl.read_parquet(m.folder / "items.parquet").select("value", "id").rows()) for m in (before, after)]
    assert ids[0] == ids[1]


def test_an_item_that_is_still_too_rare_on_a_day_done_again_stays_unknown_there(tmp_path: Path) -> None:
    nightly(tmp_path, 3)
    put(tmp_path, "3", visits(3, items="nnx"))
    put(tmp_path, "4", visits(4))
    dataset = shop(tmp_path, features={"item_id": {"encode": "category", "min_count": 2}})
    run(tmp_path, dataset)
    put(tmp_path, "late", visits(1, "late", 9, "nx"))
    lists = decoded(run(tmp_path, dataset))
    assert [None, "x"] in lists and ["n", "n", "x"] in lists
    put(tmp_path, "more", visits(1, "more", 9, "nnx"))
    assert decoded(run(tmp_path, dataset)).count(["n", "n", "x"]) == 2


def test_a_new_line_names_the_days_of_which_the_source_lost_a_part(tmp_path: Path) -> None:
    put(tmp_path, "one", visits(0) + visits(1))
    put(tmp_path, "two", visits(1, "b") + visits(2))
    put(tmp_path, "three", visits(3))
    run(tmp_path, shop(tmp_path))
    (tmp_path / "events" / "one.parquet").unlink()
    lines: list[str] = []
    run(tmp_path, shop(tmp_path, sessions={"gap_minutes": 45}), progress=said(lines))
    assert any("1 days" in line and "no longer in the source" in line and "2024-01-01" in line for line in lines)
    assert any("Of 1 days" in line and "fewer rows" in line and "2024-01-02." in line for line in lines)


PRICED: dict[str, Any] = {"columns": ["price"], "features": {"price": {"encode": ["log1p", "standardize"]}}}
SAME_LINE: list[dict[str, Any]] = [
    {"features": {**PRICED["features"], "item_id": {"encode": "category"}}},
    {"features": {**PRICED["features"], "item_id": {"encode": "category", "min_count": 1, "column": "item_id"}}},
    {"features": {"price": {"encode": ["log1p", "standardise"], "column": "price", "per": "event"}}},
    {"checks": [{"not_before": {"earliest": "1971-01-01", "tolerate": 0.5}}, "not_in_future"]},
    {"checks": [{"not_null": {"column": "item_id", "action": "fail"}}, {"readable": {"column": "price"}}]},
    {"events": {"path": "events/"}},
    {"sessions": {"rule": "gap", "idle_minutes": 60, "gap_minutes": 30}},
    {"title": "Another", "duplicates": "drop"},
]
OTHER_LINE: list[dict[str, Any]] = [
    {"features": {**PRICED["features"], "item_id": {"encode": "category", "min_count": 2}}},
    {"checks": [{"not_before": {"earliest": "1972-01-01"}}]},
    {"checks": [{"not_in_future": {"grace_minutes": 5}}]},
    {"checks": [{"not_null": {"column": "price"}}]},
    {"sessions": {"idle_minutes": 60, "gap_minutes": 31}},
    {"steps": ["drop_repeats"]},
]


def line_named(**parts: Any) -> str:
    return line_of(dataset_of("here", **{"events": {"path": "events"}, **PRICED, **parts}), ())


@pytest.mark.parametrize("parts", SAME_LINE)
def test_what_is_the_default_or_has_no_effect_begins_no_new_line(parts: dict[str, Any]) -> None:
    assert line_named(**parts) == line_named()


@pytest.mark.parametrize("parts", OTHER_LINE)
def test_what_makes_other_sessions_begins_a_new_line(parts: dict[str, Any]) -> None:
    assert line_named(**parts) != line_named()


def test_options_of_a_check_that_have_no_effect_begin_no_new_line() -> None:
    checks = [{"max_per_user_per_day": {"most": 5000}}]
    tolerant = [{"max_per_user_per_day": {"most": 5000, "tolerate": 0.2, "title": "robots"}}]
    assert line_named(checks=checks) == line_named(checks=tolerant) != line_named()
    items = {"columns": {"item_id": "id"}, "unknown": "quarantine"}
    assert line_named(items=items) == line_named(items={**items, "wait_days": 1}) != line_named()
    unknown = [{"known_values": {"column": "item_id", "table": "items", "tolerate": 0.1}}]
    assert line_named(items=items, checks=unknown) == line_named(items=items)
