"""Which rows a finished day was made of: what replaces them, joins them, comes late among them; and what a crash leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.features.state import State
from preprocessing.history.ledger import Ledger
from schemas.artifacts import Artifacts, Manifest
from tests.cases.test_finished_days import days_of, first, nightly, put, shop, visits
from tests.preprocessing.small import at, content, decoded, run, said, sessions_of


def ledger_of(manifest: Manifest) -> Ledger:
    artifacts = Artifacts(manifest.root)
    (line,) = (path.stem for path in (artifacts.root / "ledgers").iterdir())
    return Ledger.read(artifacts, line)


def counts_of(manifest: Manifest) -> dict[Any, int]:
    """How often each item was counted, in the state after everything."""
    state = State.read(Artifacts(manifest.root), ledger_of(manifest).about.state)
    return dict(state.fitted["item_id"].select("value", "count").rows())


def bad_rows(manifest: Manifest) -> pl.DataFrame:
    files = sorted((manifest.folder / "quarantine").rglob("*.parquet"))
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files], how="diagonal_relaxed")


def test_other_rows_in_place_of_a_day_do_not_replace_it(tmp_path: Path) -> None:
    """One file that is overwritten each night with a day of UTC: the end of one day in Auckland and most of the next."""
    dataset = shop(tmp_path, time_zone="Pacific/Auckland")
    rows = [row for day in range(5) for hour in range(0, 24, 2) for row in visits(day, f"u{hour}", hour)]
    put(tmp_path, "export", [row for row in rows if row[2] < at(2, 0)])
    before = run(tmp_path, dataset)
    for day in range(2, 5):
        put(tmp_path, "export", [row for row in rows if row[2].date() == first(day)])
        after = run(tmp_path, dataset)
        same = set(days_of(before)) & set(days_of(after))
        assert {day: days_of(after)[day] for day in same} == {day: days_of(before)[day] for day in same}
        before = after
    assert after.facts["quarantined"]["too_late"] > 0


def test_files_that_are_joined_while_a_row_comes_late(tmp_path: Path) -> None:
    nightly(tmp_path)
    run(tmp_path, shop(tmp_path), until=first(3))
    events = tmp_path / "events"
    joined = [pl.read_parquet(events / f"{day}.parquet") for day in (1, 2)]
    (events / "1.parquet").unlink()
    (events / "2.parquet").unlink()
    put(tmp_path, "joined", [*pl.concat(joined).reverse().rows(), *visits(2, "late", 9)])
    after = run(tmp_path, shop(tmp_path), until=first(4))
    assert days_of(after)["2024-01-03"] == 4 and "too_late" not in after.facts["quarantined"]


def test_the_row_that_is_late_is_the_one_in_quarantine(tmp_path: Path) -> None:
    """It stands between others in a file that is in order of time."""
    nightly(tmp_path, 4)
    run(tmp_path, shop(tmp_path), until=first(2))
    (tmp_path / "events" / "0.parquet").unlink()
    rows = pl.read_parquet(tmp_path / "events" / "1.parquet").rows()
    put(tmp_path, "1", sorted([*rows, ("late", "y", at(1, 0, 6))], key=lambda row: row[2]))
    after = run(tmp_path, shop(tmp_path), until=first(3))
    assert bad_rows(after).select("user_id", "rule").rows() == [("late", "too_late")]


def test_what_came_too_late_is_counted_once_however_often_its_home_is_done_again(tmp_path: Path) -> None:
    nightly(tmp_path)
    run(tmp_path, shop(tmp_path), until=first(3))
    (tmp_path / "events" / "1.parquet").unlink()
    put(tmp_path, "late", visits(1, "late", 9))
    run(tmp_path, shop(tmp_path), until=first(4))
    again = run(tmp_path, shop(tmp_path), until=first(4), redo=(first(4), first(4)))
    put(tmp_path, "5", [*visits(5), *visits(4, "more", 9)])
    later = run(tmp_path, shop(tmp_path), until=first(5))
    assert again.facts["quarantined"] == later.facts["quarantined"] == {"too_late": 2}
    assert bad_rows(later)["user_id"].to_list() == ["late", "late"]


def test_a_correction_of_a_price_is_taken(tmp_path: Path) -> None:
    columns = ["user_id", "item_id", "timestamp", "price"]
    features = {"price": {"encode": "log1p"}}
    dataset = shop(tmp_path, columns=("price",), features=features)
    for day in range(3):
        put(tmp_path, f"{day}", [(*row, 1.0) for row in visits(day)], columns)
    run(tmp_path, dataset)
    put(tmp_path, "1", [(*row, 99.0) for row in visits(1)], columns)
    prices = sessions_of(run(tmp_path, dataset))["price"].to_list()
    assert prices[1][0] > prices[0][0] == prices[2][0]


def test_a_correction_of_ids_is_taken_on_purpose_only(tmp_path: Path) -> None:
    nightly(tmp_path, 3)
    before = run(tmp_path, shop(tmp_path))
    rows = [("other", *row[1:]) for row in pl.read_parquet(tmp_path / "events" / "1.parquet").rows()]
    put(tmp_path, "1", rows)
    assert run(tmp_path, shop(tmp_path)).parents == before.parents
    after = run(tmp_path, shop(tmp_path), redo=(first(1), first(1)))
    assert "other" in sessions_of(after)["user_id"].to_list()


def test_states_are_those_of_all_days_when_several_are_done_again(tmp_path: Path) -> None:
    nightly(tmp_path)
    run(tmp_path, shop(tmp_path))
    put(tmp_path, "late", [*visits(1, "late", 9, "nnn"), *visits(4, "late", 9)])
    after = run(tmp_path, shop(tmp_path))
    events = [item for session in decoded(after) for item in session]
    assert sum(counts_of(after).values()) == len(events) == after.facts["events"]
    put(tmp_path, "later", visits(2, "later", 9, "new"))
    again = run(tmp_path, shop(tmp_path))
    assert None not in [item for session in decoded(again) for item in session]  # what is published knows all ids


@pytest.mark.parametrize("lost", ["all", "newest"])
def test_states_that_are_lost_while_rows_come_late(tmp_path: Path, lost: str) -> None:
    nightly(tmp_path)
    manifest = run(tmp_path, shop(tmp_path), until=first(3))
    newest = Path(manifest.root) / ledger_of(manifest).about.state
    for state in (Path(manifest.root) / "states").iterdir() if lost == "all" else [newest]:
        (state / "fitted" / "item_id.parquet").unlink()
    put(tmp_path, "late", [*visits(1, "late", 9), *visits(3, "late", 9)])
    after = run(tmp_path, shop(tmp_path), until=first(4))
    other = tmp_path / "other"
    for file in sorted((tmp_path / "events").iterdir()):
        put(other, file.stem, pl.read_parquet(file).rows())
    expected = run(other, shop(other), until=first(4))
    assert sorted(map(str, decoded(after))) == sorted(map(str, decoded(expected)))
    assert counts_of(after) == counts_of(expected)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_days_to_do_again_outlive_a_crash(tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from preprocessing.execution.batch import Batch

    nightly(tmp_path)
    run(tmp_path, shop(tmp_path), until=first(3))
    put(tmp_path, "late", [("c", "y", at(1, 23, 55)), *visits(2, "late", 9)])
    read, calls = Batch.read, []

    def die(batch: Batch) -> None:
        calls.append(batch.first)
        if len(calls) == stop:
            raise KeyboardInterrupt
        read(batch)

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "read", die)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, shop(tmp_path), until=first(4))
    after = run(tmp_path, shop(tmp_path), until=first(4))
    assert sessions_of(after).filter(user_id="c", day="2024-01-03")["length"].to_list() == [3]
    assert days_of(after)["2024-01-03"] == 4


def test_a_day_that_is_left_pending_is_not_shrunk_by_a_source_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from preprocessing.execution.batch import Batch

    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path), until=first(3))
    put(tmp_path, "late", [*visits(1, "late", 9), *visits(2, "late", 9)])
    read, calls = Batch.read, []

    def die(batch: Batch) -> None:
        calls.append(batch.first)
        if len(calls) == 2:
            raise KeyboardInterrupt
        read(batch)

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "read", die)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, shop(tmp_path), until=first(3))
    (tmp_path / "events" / "2.parquet").unlink()
    after = run(tmp_path, shop(tmp_path), until=first(3))
    assert days_of(after)["2024-01-02"] == days_of(before)["2024-01-02"] + 1
    assert days_of(after)["2024-01-03"] == days_of(before)["2024-01-03"]


def test_a_day_without_rows_of_its_own_holds_up_nothing(tmp_path: Path) -> None:
    """All that a day has was carried into it over midnight."""
    for day in (0, 1, 3, 4):
        put(tmp_path, f"{day}", [*visits(day), ("n", "x", at(day, 23, 40)), ("n", "y", at(day, 23, 50))])
    before = run(tmp_path, shop(tmp_path))
    assert days_of(before)["2024-01-03"] == 1
    put(tmp_path, "late", visits(1, "late", 9))
    after = run(tmp_path, shop(tmp_path))
    assert days_of(after)["2024-01-02"] == days_of(before)["2024-01-02"] + 1


def test_another_version_of_the_hash_does_no_day_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path), until=first(3))
    for module in ("source.index", "history.ledger", "history.changes", "history.days", "history.rows", "output.day"):
        monkeypatch.setattr(f"preprocessing.{module}.HASH", "another", raising=False)
    hashed = pl.Expr.hash
    monkeypatch.setattr(pl.Expr, "hash", lambda self, seed=0: hashed(self, seed + 1))
    lines: list[str] = []
    after = run(tmp_path, shop(tmp_path), until=first(4), progress=said(lines))
    assert after.parents[:4] == before.parents and not any("again" in line for line in lines)
    assert ledger_of(after).about.hashed_by == "another"
    assert content(run(tmp_path, shop(tmp_path), until=first(4))) == content(after)
