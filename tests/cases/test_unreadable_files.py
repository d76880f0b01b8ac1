"""One event file that cannot be read: the days before its own are done, the rest wait and say for what."""

from __future__ import annotations

import gzip
import shutil
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from preprocessing.history.unreadable import day_of
from schemas.dataset import Dataset
from schemas.errors import InputError
from tests.preprocessing.small import MONDAY, at, content, dataset_of, run

DAYS = [MONDAY.date() + timedelta(days=number) for number in range(5)]
BROKEN = 3


def rows_of(day: int) -> pl.DataFrame:
    rows = [
        (f"u{user}", f"i{(user + place) % 4}", at(day, 10 + user, place)) for user in range(3) for place in range(3)
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def write(folder: Path, day: int, name: str) -> Path:
    """A day's file; `name` says how it is called and written."""
    file = folder / "events" / name.format(DAYS[day])
    file.parent.mkdir(parents=True, exist_ok=True)
    text = rows_of(day).with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv()
    if name.endswith(".parquet"):
        rows_of(day).write_parquet(file)
    else:
        file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return file


def damage(file: Path) -> None:
    """What a broken upload leaves: half a file, or of text a line that is none."""
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if file.suffix != ".csv" else whole + b"u9,i1\xff,x,y,z,1,2,3\n")


def source(folder: Path, name: str) -> Dataset:
    for day in range(5):
        write(folder, day, name)
    return dataset_of(folder, events={"path": "events"})


@pytest.mark.parametrize("name", ["{}.parquet", "shop_{:%Y%m%d}.csv", "day={}/part-0.parquet", "export-{}.csv.gz"])
def test_days_before_the_broken_one_are_done_and_later_ones_say_what_they_wait_for(name: str, tmp_path: Path) -> None:
    dataset = source(tmp_path, name)
    damage(tmp_path / "events" / name.format(DAYS[BROKEN]))
    said: list[str] = []
    for until in DAYS[1:BROKEN]:
        done = run(tmp_path, dataset, until=until, progress=lambda line: said.append(str(line)))
        assert done.facts["test_day"] == str(until)
    assert f"Days from {DAYS[BROKEN]} on wait until these are mended" in "\n".join(said)
    for until in DAYS[BROKEN:]:
        with pytest.raises(
            InputError, match=rf"By its name it is of {DAYS[BROKEN]}: days before it are done without it"
        ):
            run(tmp_path, dataset, until=until)
    write(tmp_path, BROKEN, name)
    mended = run(tmp_path, dataset, until=DAYS[-1])
    (tmp_path / "whole").mkdir()
    shutil.copytree(tmp_path / "events", tmp_path / "whole" / "events")
    whole = run(tmp_path / "whole", dataset_of(tmp_path / "whole", events={"path": "events"}), until=DAYS[-1])
    assert content(mended) == content(whole), "day by day gives what all at once gives"


def test_a_name_without_a_day_says_nothing_of_any(tmp_path: Path) -> None:
    dataset = source(tmp_path, "{}.parquet")
    (tmp_path / "events" / "late.parquet").write_bytes(b"PAR1 nothing")
    for until in (DAYS[1], DAYS[-1]):
        with pytest.raises(InputError, match=r"late.parquet.*cannot be read") as caught:
            run(tmp_path, dataset, until=until)
        assert "By its name" not in str(caught.value)


def test_a_night_without_a_day_asked_for_is_refused_too(tmp_path: Path) -> None:
    """What is newest would be another day than the one that is there."""
    dataset = source(tmp_path, "{}.parquet")
    damage(tmp_path / "events" / f"{DAYS[-1]}.parquet")
    with pytest.raises(InputError, match=rf"cannot be read.*By its name it is of {DAYS[-1]}"):
        run(tmp_path, dataset)


@pytest.mark.parametrize(
    ("path", "day"),
    [
        ("events/2026-03-05.csv", date(2026, 3, 5)),
        ("events_20260305_part2.csv", date(2026, 3, 5)),
        ("2026/03/05/x.parquet", date(2026, 3, 5)),
        ("year=2026/month=3/day=05/x.parquet", date(2026, 3, 5)),
        ("from-2026-03-05-to-2026-03-07.csv", date(2026, 3, 5)),
        ("2026-02-30.csv", None),
        ("order-12026030512.csv", None),
        ("part-0.parquet", None),
    ],
)
def test_days_of_names(path: str, day: date | None) -> None:
    assert day_of(path) == day
