"""A finished day is a fact: what shrinks, moves, is damaged or comes late afterwards."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.history.ledger import Ledger
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import Dataset
from schemas.errors import InputError
from tests.preprocessing.small import NOW, at, dataset_of, decoded, run, said, sessions_of

COLUMNS = ["user_id", "item_id", "timestamp"]


def visits(day: int, user: str = "a", hour: int = 12, items: str = "xy") -> list[tuple[Any, ...]]:
    return [(user, item, at(day, hour, minute)) for minute, item in enumerate(items)]


def put(folder: Path, name: str, rows: list[tuple[Any, ...]], columns: list[str] = COLUMNS) -> None:
    (folder / "events").mkdir(exist_ok=True, parents=True)
    table = pl.DataFrame(rows, schema=columns, orient="row", schema_overrides={"timestamp": pl.Datetime("us", "UTC")})
    table.write_parquet(folder / "events" / f"{name}.parquet")


def shop(folder: Path, **parts: Any) -> Dataset:
    return dataset_of(folder, events={"path": "events"}, **parts)


def nightly(folder: Path, days: int = 5) -> None:
    """One file a day: users a and b visit x and y, and c from an hour before midnight to an hour after."""
    for day in range(days):
        over_midnight = [("c", "z", at(day, 23, 50)), ("c", "x", at(day, 24, 5))]
        put(folder, f"{day}", [*visits(day), *visits(day, "b", 13, "yxz"), *over_midnight])


def days_of(manifest: Manifest) -> dict[str, int]:
    return dict(manifest.facts["days"])


def first(day: int) -> date:
    return at(day).date()


@pytest.mark.fault("source files expire", outcome="finished days stay as they are")
def test_files_that_expire_shrink_no_day(tmp_path: Path) -> None:
    """Days begin in Los Angeles, files in UTC; each night the file of four days before is gone."""
    dataset = shop(tmp_path / "source", time_zone="America/Los_Angeles")
    everything = [visits(day, f"u{hour}", hour, "xyz") for day in range(8) for hour in range(24)]
    rows = [row for rows in everything for row in rows]
    for day in range(8):
        put(tmp_path / "source", f"{day}", [row for row in rows if row[2].date() == first(day)])
        if day >= 4:
            (tmp_path / "source" / "events" / f"{day - 4}.parquet").unlink()
        if day >= 2:
            nights = run(tmp_path / "source", dataset)
    put(tmp_path / "whole", "all", rows)
    at_once = run(tmp_path / "whole", shop(tmp_path / "whole", time_zone="America/Los_Angeles"))
    assert days_of(nights) == days_of(at_once)
    assert sorted(map(str, decoded(nights))) == sorted(map(str, decoded(at_once)))


def test_a_file_that_is_cut_from_its_front_shrinks_no_day(tmp_path: Path) -> None:
    """One file that is written anew each night and holds the last days only, its first day in part."""
    rows = [row for day in range(8) for hour in range(0, 24, 2) for row in visits(day, f"u{hour}", hour)]
    for last in range(3, 9):
        window = [row for row in rows if at(last - 3, 7) <= row[2] < at(last, 0)]
        put(tmp_path, "export", window if last > 3 else rows[: 3 * 24])
        manifest = run(tmp_path, shop(tmp_path))
    assert set(days_of(manifest).values()) == {12}


def test_what_comes_too_late_is_counted_once_and_kept(tmp_path: Path) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path), until=first(3))
    (tmp_path / "events" / "1.parquet").unlink()
    put(tmp_path, "4", [*visits(4), *visits(1, "late", 9)])
    lines: list[str] = []
    after = run(tmp_path, shop(tmp_path), until=first(4), progress=said(lines))
    assert after.parents[:4] == before.parents
    assert any("2 rows of events/4.parquet are of 2024-01-02" in line and "come too late" in line for line in lines)
    assert after.facts["quarantined"] == {"too_late": 2}
    bad = pl.read_parquet(after.folder / "quarantine/day=2024-01-05/part-0.parquet")
    assert bad.select("user_id", "rule").rows() == [("late", "too_late")] * 2
    put(tmp_path, "5", visits(5))
    lines.clear()
    later = run(tmp_path, shop(tmp_path), until=first(5), progress=said(lines))
    assert later.facts["quarantined"] == {"too_late": 2} and not any("come too late" in line for line in lines)


def test_a_file_that_grows_for_a_day_that_is_gone_in_part(tmp_path: Path) -> None:
    put(tmp_path, "one", visits(0) + visits(1))
    put(tmp_path, "two", visits(1, "b") + visits(2))
    run(tmp_path, shop(tmp_path))
    (tmp_path / "events" / "one.parquet").unlink()
    put(tmp_path, "two", visits(1, "b") + visits(2) + visits(1, "late", 20) + visits(3))
    manifest = run(tmp_path, shop(tmp_path))
    assert days_of(manifest)["2024-01-02"] == 2
    bad = pl.read_parquet(manifest.folder / "quarantine/day=2024-01-04/part-0.parquet")
    assert bad["user_id"].to_list() == ["late", "late"]


def test_a_late_file_moves_its_day_while_the_source_holds_it(tmp_path: Path) -> None:
    nightly(tmp_path)
    run(tmp_path, shop(tmp_path), until=first(3))
    put(tmp_path, "late", visits(2, "late", 9))
    assert days_of(run(tmp_path, shop(tmp_path), until=first(4)))["2024-01-03"] == 4


def test_files_that_are_renamed_or_joined_change_nothing(tmp_path: Path) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    events = tmp_path / "events"
    (events / "0.parquet").rename(events / "renamed.parquet")
    joined = pl.concat([pl.read_parquet(events / "1.parquet"), pl.read_parquet(events / "2.parquet")])
    joined.reverse().write_parquet(events / "joined.parquet")
    (events / "1.parquet").unlink()
    (events / "2.parquet").unlink()
    assert run(tmp_path, shop(tmp_path)).parents == before.parents


def test_a_day_is_not_done_again_when_its_open_sessions_would_be_lost(tmp_path: Path) -> None:
    """The day after, into which sessions reach, is gone from the source: the late event cannot move both."""
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path), until=first(3))
    (tmp_path / "events" / "2.parquet").unlink()
    put(tmp_path, "late", [("c", "y", at(1, 23, 55))])
    put(tmp_path, "4", visits(4))
    after = run(tmp_path, shop(tmp_path), until=first(4))
    assert after.parents[:4] == before.parents and after.facts["quarantined"] == {"too_late": 1}


def test_one_lost_day_touches_no_other(tmp_path: Path) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    for day in range(3):
        (tmp_path / "events" / f"{day}.parquet").unlink()
    lost = Path(before.root) / before.parents[0] / "sessions.parquet"
    lost.unlink()
    lines: list[str] = []
    assert run(tmp_path, shop(tmp_path), progress=said(lines)).id == before.id
    assert any("2024-01-01" in line and "put back from sessions/" in line for line in lines)
    shutil.rmtree(Path(before.root) / "sessions")
    lost.unlink()
    lines.clear()
    after = run(tmp_path, shop(tmp_path), progress=said(lines))
    assert any("2024-01-01" in line and "no longer holds" in line for line in lines)
    assert days_of(after) == {day: n for day, n in days_of(before).items() if day != "2024-01-01"}
    assert after.facts["missing_days"] == ["2024-01-01"]
    put(tmp_path, "5", visits(5))
    assert run(tmp_path, shop(tmp_path)).facts["missing_days"] == ["2024-01-01"]


@pytest.mark.parametrize("file", ["sessions.parquet", "open.parquet"])
@pytest.mark.fault("a finished day is damaged", outcome="done again where the source holds it: the same rows")
def test_a_damaged_day_is_done_again_and_is_what_it_was(tmp_path: Path, file: str) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    damaged = Path(before.root) / before.parents[-1] / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(bytes(content))
    lines: list[str] = []
    after = run(tmp_path, shop(tmp_path), progress=said(lines))
    assert any("2024-01-05" in line and "damaged" in line for line in lines)
    assert after.id == before.id and sessions_of(after).equals(sessions_of(before))
    artifacts = Artifacts(before.root)
    assert all(artifacts.find(*name.split("/"), contents=True) for name in (*after.parents, after.name))


def test_a_byte_that_a_disk_lost_is_found_when_asked_for(tmp_path: Path) -> None:
    import os

    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    damaged = Path(before.root) / before.parents[0] / "sessions.parquet"
    about = damaged.stat()
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(bytes(content))
    os.utime(damaged, ns=(about.st_atime_ns, about.st_mtime_ns))
    lines: list[str] = []
    run(tmp_path, shop(tmp_path), progress=said(lines), verify=True)
    assert any("2024-01-01" in line and "damaged" in line for line in lines)
    assert Artifacts(before.root).find(*before.name.split("/"), contents=True)


def test_a_flipped_byte_is_noticed_before_training_reads_it(tmp_path: Path) -> None:
    import os

    from modeling.splits import split_sessions
    from schemas.features import FeatureSchema

    nightly(tmp_path)
    manifest = run(tmp_path, shop(tmp_path))
    schema = FeatureSchema.read(manifest.folder / "schema.json")
    assert len(split_sessions(manifest, schema, 10).train)
    damaged = next((manifest.folder / "sessions").rglob("part-0.parquet"))
    about, content = damaged.stat(), bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(bytes(content))
    os.utime(damaged, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(InputError, match="overnight verify --mend"):
        split_sessions(manifest, schema, 10)
    run(tmp_path, shop(tmp_path), verify=True)
    assert len(split_sessions(manifest, schema, 10).train)


def test_another_version_of_the_code_touches_no_finished_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path), until=first(3))
    for day in range(3):
        (tmp_path / "events" / f"{day}.parquet").unlink()
    monkeypatch.setattr(
        "preprocessing.history.batches.made_with", lambda *of_run: {"overnight": "99", "code": "another"}
    )
    after = run(tmp_path, shop(tmp_path), until=first(4))
    assert after.parents[:4] == before.parents
    made = [Artifacts(before.root).get(name).parameters["overnight"] for name in after.parents[-2:]]
    assert made[0] != "99" and made[1] == "99"


def test_days_are_done_again_on_purpose_where_the_source_holds_them(tmp_path: Path) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    lines: list[str] = []
    after = run(tmp_path, shop(tmp_path), redo=(first(1), first(2)), progress=said(lines))
    changed = [
        place for place, pair in enumerate(zip(before.parents, after.parents, strict=True)) if pair[0] != pair[1]
    ]
    assert changed == [1, 2] and sessions_of(after).equals(sessions_of(before))
    assert sum("it was asked for" in line for line in lines) == 2
    (tmp_path / "events" / "2.parquet").unlink()
    with pytest.raises(InputError, match=r"no longer holds all .* 2024-01-03"):
        run(tmp_path, shop(tmp_path), redo=(first(1), first(2)))
    with pytest.raises(InputError, match=r"no finished day .* run from 2024-01-01 to 2024-01-05"):
        run(tmp_path, shop(tmp_path), redo=(date(2023, 1, 1), date(2023, 1, 2)))
    assert run(tmp_path, shop(tmp_path)).parents == after.parents


def test_a_changed_yaml_begins_a_new_line_and_names_what_it_lacks(tmp_path: Path) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    (tmp_path / "events" / "0.parquet").unlink()
    lines: list[str] = []
    longer = shop(tmp_path, sessions={"gap_minutes": 45})
    after = run(tmp_path, longer, progress=said(lines))
    assert "2024-01-01" not in days_of(after)
    assert any("1 days that were done before" in line and "2024-01-01" in line for line in lines)
    assert run(tmp_path, shop(tmp_path)).id == before.id


def test_features_named_in_another_order_are_the_same(tmp_path: Path) -> None:
    """The finished days stay, and the next one is added to them."""
    rows = [(*row, place, "b") for day in range(4) for place, row in enumerate(visits(day, items="xyz"))]
    put(tmp_path, "all", rows, [*COLUMNS, "price", "brand"])
    features: dict[str, Any] = {"price": {"encode": "standardize"}, "brand": {"encode": "category"}}
    orders = [list(features), list(reversed(features))]
    nights = [
        run(
            tmp_path,
            shop(
                tmp_path,
                columns=("price", "brand"),
                features={"item_id": {"encode": "category"}} | {name: features[name] for name in order},
            ),
            until=first(last),
        )
        for last, order in zip((2, 3), orders, strict=True)
    ]
    assert list(days_of(nights[1])) == [*days_of(nights[0]), "2024-01-04"]
    table = pl.read_parquet(nights[1].folder / "items.parquet").sort("value")
    assert table["brand"].to_list() == [3, 3, 3] and table["price"].is_sorted()


def test_two_sources_do_not_mix(tmp_path: Path) -> None:
    root = Artifacts(tmp_path / "root")
    sample, real = tmp_path / "sample", tmp_path / "real"
    nightly(sample, 3)
    for day in range(2, 6):
        put(real, f"{day}", visits(day, "r", items="yxz"))
    from preprocessing.pipeline import prepare

    options: dict[str, Any] = {"now": NOW, "progress": lambda progress: None}
    before = prepare(root, shop(sample), **options)
    with pytest.raises(InputError, match="give another --root, or another name"):
        prepare(root, shop(real), **options)
    assert prepare(root, shop(sample), **options).id == before.id
    sample.rename(tmp_path / "moved")
    put(tmp_path / "moved", "3", visits(3))
    (tmp_path / "moved" / "events" / "0.parquet").unlink()
    after = prepare(root, shop(tmp_path / "moved"), **options)
    assert after.parents[:3] == before.parents[:3]


def test_events_come_in_when_the_catalogue_does(tmp_path: Path) -> None:
    nightly(tmp_path, 4)
    dataset = shop(tmp_path, items={"columns": {"item_id": "item_id"}, "unknown": "quarantine", "wait_days": 3})
    pl.DataFrame({"item_id": ["x", "y"]}).write_parquet(tmp_path / "items.parquet")
    first_night = run(tmp_path, dataset)
    assert first_night.facts["quarantined"]["unknown_item"] == 8
    pl.DataFrame({"item_id": ["x", "y", "z"]}).write_parquet(tmp_path / "items.parquet")
    put(tmp_path, "4", visits(4))
    (tmp_path / "events" / "1.parquet").unlink()
    lines: list[str] = []
    after = run(tmp_path, dataset, progress=said(lines))
    # The first day is longer ago than the dataset waits, the second and a part of the third are gone, the fourth comes in.
    assert after.facts["quarantined"]["unknown_item"] == 6
    assert any("2024-01-02" in line and "they stay in quarantine" in line for line in lines)
    assert run(tmp_path, dataset).id == after.id


@pytest.mark.fault("the index of the source is damaged", outcome="read anew")
def test_a_cache_that_is_damaged_is_taken_anew(tmp_path: Path) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    for content in (b"", b"half a file", None):
        for file in (tmp_path / "artifacts" / "inventories").iterdir():
            file.write_bytes(content) if content is not None else file.unlink()
        assert run(tmp_path, shop(tmp_path)).id == before.id


@pytest.mark.fault("the ledger of finished days is damaged", outcome="one line")
def test_a_list_of_finished_days_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    nightly(tmp_path)
    run(tmp_path, shop(tmp_path))
    (ledger,) = (tmp_path / "artifacts" / "ledgers").iterdir()
    ledger.write_bytes(b"half a file")
    with pytest.raises(InputError, match="list of finished days cannot be read"):
        run(tmp_path, shop(tmp_path))


def test_a_day_is_looked_at_again_after_its_files_are_gone(tmp_path: Path) -> None:
    """What was known before a day in the middle of the first night was not kept; statistics of days give it."""
    nightly(tmp_path)
    other = tmp_path / "other"
    nightly(other)
    run(tmp_path, shop(tmp_path))
    shutil.rmtree(tmp_path / "events")
    put(tmp_path, "6", visits(6))
    earlier = run(tmp_path, shop(tmp_path), until=first(2))
    expected = run(other, shop(other), until=first(2))
    assert sessions_of(earlier).equals(sessions_of(expected))
    for name in ("items.parquet", "vocabularies/item_id.parquet"):
        assert pl.read_parquet(earlier.folder / name).equals(pl.read_parquet(expected.folder / name))


def test_looking_for_changes_costs_the_same_after_many_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files opened, tables read and hashes taken on a night with nothing to do do not grow with history."""
    reads: list[str] = []
    original = pl.read_parquet

    def read(*given: Any, **named: Any) -> pl.DataFrame:
        reads.append("table")
        return original(*given, **named)

    def hashed(path: Path) -> str:
        reads.append("file")
        return ""

    counts = []
    for days in (3, 12):
        folder = tmp_path / str(days)
        nightly(folder, days)
        run(folder, shop(folder))
        reads.clear()
        with monkeypatch.context() as patch:
            patch.setattr(pl, "read_parquet", read)
            patch.setattr("schemas.manifests.sha256", hashed)
            assert run(folder, shop(folder)).reused
        counts.append(len(reads))
    assert counts[0] == counts[1]


def test_changes_are_told_from_what_days_were_made_of(tmp_path: Path) -> None:
    nightly(tmp_path, 3)
    manifest = run(tmp_path, shop(tmp_path))
    artifacts = Artifacts(manifest.root)
    (line,) = (path.stem for path in (artifacts.root / "ledgers").iterdir())
    ledger = Ledger.read(artifacts, line)
    assert ledger.about.until == first(2) and ledger.days["day"].to_list() == [first(0), first(1), first(2)]
    parts = ledger.parts().select("finished", "path", "rows").rows()
    assert parts == [(first(n), f"events/{n}.parquet", 6) for n in range(1)] + parts[1:]
    assert ledger.last_before(first(2)) == first(1) and not ledger.has(first(5))
