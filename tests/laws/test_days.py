"""However the same events are divided over nights, files, parts and orders of rows: the same sessions, ids and bytes."""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.execution import batch
from preprocessing.execution.run import Workers
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import Dataset
from schemas.progress import Progress
from tests.preprocessing.small import NOW, at, content, dataset_of, run, said, three_days
from tests.slow import examples

COLUMNS = ("user_id", "session_id", "item_id", "timestamp", "event_type", "price")
LAST = date(2024, 1, 4)
DIVIDED, THREADS = Workers(min_buckets=3), Workers(threads=3)
# Many events lie around midnight, where sessions go from one day to the next.
MINUTES = st.one_of(
    st.integers(0, 4 * 24 * 60 - 1),
    st.tuples(st.integers(1, 3), st.integers(-70, 70)).map(lambda day: day[0] * 24 * 60 + day[1]),
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", None]),
        st.sampled_from([1, 2]),
        st.sampled_from(["u", "v", "w", "x", "y", "z", None]),
        st.one_of(
            MINUTES.map(lambda minute: at(0, 0) + timedelta(minutes=minute)), st.just(NOW + timedelta(9)), st.none()
        ),
        st.sampled_from(["view", "cart", "error"]),
        st.sampled_from([1.0, 2.5, 9.0, None]),
    ),
    max_size=60,
)


def dataset_in(folder: str | Path, rule: str, zone: str) -> Dataset:
    return dataset_of(
        folder,
        columns={name: name for name in COLUMNS},
        events={"path": "events"},
        steps=[{"filter_event_types": {"keep": ["view", "cart"]}}, "drop_repeats", "dwell_time"],
        sessions={"rule": rule, "max_length": 4, "idle_minutes": 90},
        features={
            "item_id": {"encode": "category", "min_count": 2},
            "type": {"column": "event_type", "encode": "category"},
            "log_price": {"column": "price", "encode": ["log1p", "standardize"]},
            "first_price": {"column": "price", "encode": "quantile", "q": 3, "per": "session"},
            "first_type": {"column": "event_type", "encode": "category", "per": "session"},
            "hour": {"column": "timestamp", "encode": "hour"},
            "age": {"column": "timestamp", "encode": ["item_age", "log1p", "standardize"]},
        },
        labels=["price", {"column": "dwell", "per": "event"}],
        time_zone=zone,
    )


def put(folder: Path, parts: list[list[Any]]) -> None:
    (folder / "events").mkdir(exist_ok=True)
    schema = {"price": pl.Float64, "timestamp": pl.Datetime("us", "UTC"), "user_id": pl.String, "item_id": pl.String}
    for part in parts:
        name = f"{len(list((folder / 'events').iterdir())):03}.parquet"
        pl.DataFrame(part, schema=list(COLUMNS), orient="row", schema_overrides=schema).write_parquet(
            folder / "events" / name
        )


def balanced(manifest: Manifest) -> bool:
    facts = manifest.facts
    gone = sum(facts["quarantined"].values()) + sum(facts["dropped"].values()) + facts["still_open"]
    return bool(facts["rows_in"] + facts["carried_in"] == facts["events"] + gone)


@examples(9)
@given(
    EVENTS,
    st.randoms(use_true_random=False),
    st.sampled_from(["gap", "given"]),
    st.sampled_from(["UTC", "America/Sao_Paulo"]),
    st.sampled_from([DIVIDED, THREADS]),
)
def test_any_division_gives_the_same_rows(
    rows: list[Any], order: random.Random, rule: str, zone: str, divided: Workers
) -> None:
    regular = [(user, 1, item, time, "view", 2.0) for user, item, time in three_days()]
    rows = [*rows, *regular, ("e", 1, "x", at(3, 9), "view", 1.0), ("e", 1, "y", at(3, 9, 1), "view", 1.0)]
    found: list[Manifest] = []
    held: list[dict[str, Any]] = []

    def keep(manifest: Manifest) -> None:
        """While its folder is there."""
        found.append(manifest)
        held.append(content(manifest))

    with tempfile.TemporaryDirectory() as name:
        at_once = Path(name) / "at once"
        at_once.mkdir()
        put(at_once, [rows])
        keep(run(at_once, dataset_in(at_once, rule, zone), until=LAST))
    with tempfile.TemporaryDirectory() as name:
        shuffled = order.sample(rows, len(rows))
        put(Path(name), [shuffled[::3], shuffled[1::3], shuffled[2::3]])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "FEW_ROWS", 1)
            keep(run(Path(name), dataset_in(name, rule, zone), until=LAST, workers=divided))
        of_files = (
            "seconds",
            "rows_of_last_day",
            "quarantined_of_last_day",
        )  # a row of no day is of its file's last one
        found[-1].facts.update({name: found[0].facts[name] for name in of_files})
        assert found[-1].facts == found[0].facts
    with tempfile.TemporaryDirectory() as name:
        nightly = Path(name)
        # Nights end where days do in UTC: with another zone, a night's file holds parts of two days.
        dated = [row for row in rows if row[3] is not None and row[3] < NOW]
        others = [row for row in rows if row not in dated]
        dataset = dataset_in(nightly, rule, "UTC")
        for day in range(4):
            tonight = [row for row in dated if at(day, 0) <= row[3] < at(day + 1, 0)]
            put(nightly, [tonight + (others if day == 3 else [])])
            if day:
                keep(run(nightly, dataset, until=date(2024, 1, 1 + day)))
        assert zone != "UTC" or held[-1] == held[0]
    assert held[1] == held[0]
    assert all(balanced(manifest) for manifest in found)
    assert found[0].facts["rows_in"] + found[0].facts["outside_window"] == len(rows)


Nights = tuple[Dataset, list[Manifest]]


def three_nights(folder: Path) -> list[Manifest]:
    """Three nights of the three days and one more."""
    dataset = dataset_in(folder, "gap", "UTC")
    manifests = []
    for day in range(4):
        over_midnight = [("o", 1, "uv"[n], at(day, 23, 50 + 9 * n), "view", 2.0) for n in range(2)]
        tonight = [(user, 1, item, time + timedelta(days=day), "view", 2.0) for user, item, time in three_days()[:5]]
        put(folder, [tonight + over_midnight])
        if day:
            manifests.append(run(folder, dataset, until=date(2024, 1, 1 + day)))
    return manifests


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with three nights, and the names of their sessions."""
    folder = tmp_path_factory.mktemp("made")
    return folder, [manifest.name for manifest in three_nights(folder)]


@pytest.fixture
def nights(made: tuple[Path, list[str]], tmp_path: Path) -> Nights:
    """The three nights, in a copy of their folder."""
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    artifacts = Artifacts(tmp_path / "artifacts")
    return dataset_in(tmp_path, "gap", "UTC"), [artifacts.get(name) for name in made[1]]


def days_of(manifest: Manifest) -> dict[str, str]:
    return dict(zip(["1", "2", "3", "4"], manifest.parents, strict=False))


def test_a_night_does_only_its_own_day(nights: Nights) -> None:
    _, manifests = nights
    assert [len(manifest.parents) for manifest in manifests] == [2, 3, 4]
    for before, after in itertools.pairwise(manifests):
        assert after.parents[:-1] == before.parents
    vocabularies = [pl.read_parquet(manifest.folder / "vocabularies/item_id.parquet") for manifest in manifests]
    for small, large in itertools.pairwise(vocabularies):
        assert large.head(small.height).select("id", "value").equals(small.select("id", "value"))


def test_a_late_file_redoes_its_day_alone_and_keeps_all_ids(tmp_path: Path, nights: Nights) -> None:
    dataset, manifests = nights
    late = [("l", 1, item, at(1, 9, n), "view", 4.0) for n, item in enumerate(["new", "x", "new"])]
    put(tmp_path, [late, [("b", 1, item, at(4, 9, n), "view", 1.0) for n, item in enumerate(["x", "y"])]])
    messages: list[str] = []
    after = run(tmp_path, dataset, until=date(2024, 1, 5), progress=said(messages))
    before = days_of(manifests[-1])
    assert {day for day, name in days_of(after).items() if name != before[day]} == {"2"}
    assert any("2024-01-02" in line and "changed" in line for line in messages)
    old = pl.read_parquet(manifests[-1].folder / "vocabularies/item_id.parquet")
    new = pl.read_parquet(after.folder / "vocabularies/item_id.parquet")
    assert new.head(old.height).select("id", "value").equals(old.select("id", "value"))
    assert new["value"].to_list()[old.height :] == ["new"]
    sessions = pl.read_parquet(after.folder / "sessions/day=2024-01-02/part-0.parquet")
    ids = dict(new.select("value", "id").rows())
    assert sessions.filter(user_id="l")["item_id"].to_list() == [[ids["new"], ids["x"], ids["new"]]]
    counts = dict(new.select("value", "count").rows())
    assert counts["x"] == dict(old.select("value", "count").rows())["x"] + 3  # late, and on the fourth day itself
    assert balanced(after)


def test_a_late_event_before_midnight_moves_the_next_day_too(tmp_path: Path, nights: Nights) -> None:
    dataset, manifests = nights
    put(tmp_path, [[("o", 1, "w", at(1, 23, 55), "view", 2.0)]])
    again = run(tmp_path, dataset, until=LAST)
    before = days_of(manifests[-1])
    assert {day for day, name in days_of(again).items() if name != before[day]} == {"2", "3"}
    assert run(tmp_path, dataset, until=LAST).reused
    sessions = pl.read_parquet(again.folder / "sessions/day=2024-01-03/part-0.parquet")
    assert sessions.filter(user_id="o")["length"].to_list() == [3]


def test_a_file_without_any_time_changes_no_later_day(tmp_path: Path, nights: Nights) -> None:
    dataset, manifests = nights
    put(
        tmp_path,
        [[("a", 1, "x", None, "view", 1.0)], [("b", 1, item, at(4, 9, n), "view", 1.0) for n, item in enumerate("xy")]],
    )
    messages: list[str] = []
    after = run(tmp_path, dataset, until=date(2024, 1, 5), progress=said(messages))
    assert not any("changed" in line for line in messages)
    assert any("003.parquet" in line or "004.parquet" in line for line in messages if "no usable time" in line)
    assert after.facts["quarantined"] == {"timestamp_null": 1}  # of the new day
    assert after.parents[:4] == manifests[-1].parents[:4]
    put(tmp_path, [[("b", 1, item, at(5, 9, n), "view", 1.0) for n, item in enumerate("xy")]])
    messages.clear()
    run(tmp_path, dataset, until=date(2024, 1, 6), progress=said(messages))
    assert not any("changed" in line for line in messages)


def test_two_datasets_that_look_back_do_not_share_days(tmp_path: Path, nights: Nights) -> None:
    dataset, _ = nights
    for length in (4, 2):
        changed = dataset.model_copy(update={"sessions": dataset.sessions.model_copy(update={"max_length": length})})
        run(tmp_path, changed, until=LAST)
        earlier = run(tmp_path, changed, until=date(2024, 1, 2))
        sessions = pl.concat(pl.read_parquet(file) for file in (earlier.folder / "sessions").rglob("*.parquet"))
        assert sessions["length"].max() == min(length, 3)


@pytest.mark.parametrize("kind", ["days/*/sessions.parquet", "states/*/fitted/item_id.parquet"])
def test_what_was_damaged_is_done_again(kind: str, tmp_path: Path, nights: Nights) -> None:
    dataset, manifests = nights
    for file in (tmp_path / "artifacts").glob(kind):
        file.unlink()
        file.write_bytes(b"half a file")
    messages: list[str] = []
    again = run(tmp_path, dataset, until=LAST, progress=said(messages))
    assert any("missing or damaged" in line for line in messages)
    assert content(again) == content(manifests[-1])


def test_logs_that_are_deleted_do_not_undo_their_days(tmp_path: Path) -> None:
    dataset, manifests = (
        dataset_in(tmp_path, "gap", "UTC"),
        three_nights(tmp_path),
    )  # in a copy, they have moved as well
    (tmp_path / "events" / "000.parquet").unlink()
    put(tmp_path, [[("b", 1, item, at(4, 9, n), "view", 1.0) for n, item in enumerate(["x", "y"])]])
    assert run(tmp_path, dataset, until=date(2024, 1, 5)).parents[:4] == manifests[-1].parents


def test_an_earlier_day_can_be_looked_at_from_where_nothing_was_kept(tmp_path: Path, nights: Nights) -> None:
    """A first run of four days keeps what was known before the fourth only; a test on the third does the days again."""
    one, other = tmp_path, tmp_path / "other"
    other.mkdir()
    dataset, manifests = nights
    put(other, [[*pl.concat([pl.read_parquet(file) for file in sorted((one / "events").iterdir())]).rows()]])
    dataset = dataset_in(other, "gap", "UTC")
    assert content(run(other, dataset, until=LAST)) == content(manifests[2])
    assert content(run(other, dataset, until=date(2024, 1, 3))) == content(manifests[1])
    assert content(run(other, dataset, until=LAST)) == content(manifests[2])


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    from preprocessing.execution import tasks as batch

    dataset, _ = nights
    whole = content(run(tmp_path, dataset, until=LAST))
    (tmp_path / "artifacts").rename(tmp_path / "first")
    cleaned = batch.clean_bucket
    calls = []

    def fail_at_the_third(job: Any, bucket: int) -> None:
        calls.append(bucket)
        if len(calls) == 3:
            raise KeyboardInterrupt
        cleaned(job, bucket)

    with monkeypatch.context() as patch:
        patch.setattr(batch, "clean_bucket", fail_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, dataset, until=LAST, workers=Workers(min_buckets=4))
    accounts = sorted((tmp_path / "artifacts/unfinished").rglob("account-*.ipc"))
    written = [file.stat().st_mtime_ns for file in accounts]
    assert len(accounts) == 2

    def look(progress: Progress) -> None:
        if progress.phase == "fit":
            assert [file.stat().st_mtime_ns for file in accounts] == written

    assert content(run(tmp_path, dataset, until=LAST, workers=Workers(min_buckets=4), progress=look)) == whole
    assert not list((tmp_path / "artifacts/unfinished").iterdir())
