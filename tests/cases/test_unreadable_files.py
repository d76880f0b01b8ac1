"""Event files that cannot be read: their days are held back, said, and done when they are mended; the rest goes on."""

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
from tests.preprocessing.small import MONDAY, at, content, dataset_of, decoded, run

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


@pytest.mark.fault(
    "an event file that cannot be read, of a day before the newest",
    outcome="its day is held back and named in each night's warnings; later days are done, and that day once it is mended",
)
@pytest.mark.parametrize("name", ["{}.parquet", "shop_{:%Y%m%d}.csv", "day={}/part-0.parquet", "export-{}.csv.gz"])
def test_the_broken_day_is_held_back_and_done_when_it_is_mended(name: str, tmp_path: Path) -> None:
    dataset = source(tmp_path, name)
    damage(tmp_path / "events" / name.format(DAYS[BROKEN]))
    said: list[str] = []
    for until in DAYS[1:BROKEN]:
        done = run(tmp_path, dataset, until=until, progress=lambda line: said.append(str(line)))
        assert done.facts["test_day"] == str(until)
    assert f"They may hold events of {DAYS[BROKEN]}, which is done when they are mended or removed" in "\n".join(said)
    with pytest.raises(InputError, match=rf"It may hold events of {DAYS[BROKEN]}: other days are done"):
        run(tmp_path, dataset, until=DAYS[BROKEN])
    without = run(tmp_path, dataset)
    assert without.facts["test_day"] == str(DAYS[-1]) and str(DAYS[BROKEN]) not in without.facts["days"]
    (warning,) = (line for line in without.facts["warnings"] if "held back" in line)
    assert warning.startswith(f"{DAYS[BROKEN]} is held back: events/{name.format(DAYS[BROKEN])}")
    assert not any("no events" in line for line in without.facts["warnings"]), "that is another thing"
    assert run(tmp_path, dataset).reused, "which it says again, and no more"
    write(tmp_path, BROKEN, name)
    said.clear()
    mended = run(tmp_path, dataset, progress=lambda line: said.append(str(line)))
    assert f"{DAYS[BROKEN]}: its events have come after those of later days; doing it now." in "\n".join(said)
    assert not any("held back" in line for line in mended.facts["warnings"]), (
        "it is over, though its night is not done again"
    )
    (tmp_path / "whole").mkdir()
    shutil.copytree(tmp_path / "events", tmp_path / "whole" / "events")
    whole = run(tmp_path / "whole", dataset_of(tmp_path / "whole", events={"path": "events"}))
    assert content(mended) == content(whole), "all ids were known before: a day that is done late is as one in time"


def test_of_a_day_in_several_files_no_part_is_done_and_its_open_sessions_follow(tmp_path: Path) -> None:
    """Half a day would be taken for a whole one. Sessions over midnight, before and after it, are as in a night for each."""
    for day in range(5):
        for user in range(3):
            times = [at(day, 0, 5), at(day, 10), at(day, 10, 1), at(day, 23, 50), at(day, 23, 55)]
            items = [f"i{day - 1}", "i1", "i2", f"i{day}", "i1"]
            file = tmp_path / "events" / f"{DAYS[day]}" / f"part-{user}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pl.DataFrame({"user_id": f"u{user}", "item_id": items, "timestamp": times}).write_parquet(file)
    dataset = dataset_of(tmp_path, events={"path": "events"})
    file = tmp_path / "events" / f"{DAYS[BROKEN]}" / "part-1.parquet"
    whole = file.read_bytes()
    damage(file)
    without = run(tmp_path, dataset, until=DAYS[-1])
    assert without.facts["days"][str(DAYS[BROKEN])] == 3, "those of the evening before: nothing of the day's own files"
    file.write_bytes(whole)
    mended = run(tmp_path, dataset, until=DAYS[-1])
    (tmp_path / "whole").mkdir()
    shutil.copytree(tmp_path / "events", tmp_path / "whole" / "events")
    in_time = run(tmp_path / "whole", dataset_of(tmp_path / "whole", events={"path": "events"}), until=DAYS[-1])
    assert decoded(mended) == decoded(in_time)
    assert mended.facts["days"] == in_time.facts["days"]


@pytest.mark.parametrize("target", ["lost.parquet", "{}.parquet"])
def test_a_link_that_leads_nowhere_or_to_itself_is_a_file_that_cannot_be_read(target: str, tmp_path: Path) -> None:
    dataset = source(tmp_path, "{}.parquet")
    file = tmp_path / "events" / f"{DAYS[BROKEN]}.parquet"
    file.unlink()
    file.symlink_to(target.format(DAYS[BROKEN]))
    done = run(tmp_path, dataset)
    assert str(DAYS[BROKEN]) not in done.facts["days"]
    (warning,) = (line for line in done.facts["warnings"] if "held back" in line)
    assert warning.startswith(f"{DAYS[BROKEN]} is held back: events/{file.name}")


def test_a_day_that_is_held_back_does_not_count_among_those_done_at_once(tmp_path: Path) -> None:
    dataset = source(tmp_path, "{}.parquet")
    run(tmp_path, dataset, until=DAYS[1])
    damage(tmp_path / "events" / f"{DAYS[BROKEN]}.parquet")
    warnings = run(tmp_path, dataset).facts["warnings"]
    assert f"2 days were done at once, in order: {DAYS[2]} and {DAYS[4]}" in warnings


def test_a_file_that_comes_broken_after_the_newest_day_is_done_is_named_until_it_is_taken_away(tmp_path: Path) -> None:
    dataset = source(tmp_path, "{}.parquet")
    file = tmp_path / "events" / f"{DAYS[BROKEN]}.parquet"
    whole = file.read_bytes()
    file.unlink()
    before = run(tmp_path, dataset)
    file.write_bytes(whole[:100])
    broken = run(tmp_path, dataset)
    assert any(f"{DAYS[BROKEN]} is held back" in line for line in broken.facts["warnings"])
    file.unlink()
    assert run(tmp_path, dataset).id == before.id


def test_files_that_reach_further_than_their_names_hold_back_all_that_they_may_hold(tmp_path: Path) -> None:
    """Two days in each file, called by the first: the second is not done either, though another file has a straggler of it."""
    names = [f"from-{DAYS[0] + timedelta(days=2 * number)}.parquet" for number in range(4)]
    (tmp_path / "events").mkdir()
    for number, name in enumerate(names):
        rows = [rows_of(2 * number), rows_of(2 * number + 1)]
        pl.concat(rows if number != 2 else [*rows, rows_of(3).head(1)]).write_parquet(tmp_path / "events" / name)
    damage(tmp_path / "events" / names[1])
    done = run(tmp_path, dataset_of(tmp_path, events={"path": "events"}))
    first = DAYS[0]
    expected = [str(first + timedelta(days=number)) for number in (0, 1, 4, 5, 6, 7)]
    assert sorted(done.facts["days"]) == expected
    assert sum("is held back" in line for line in done.facts["warnings"]) == 2


def test_a_finished_day_whose_file_is_damaged_stays_and_new_days_are_done(tmp_path: Path) -> None:
    dataset = source(tmp_path, "{}.parquet")
    before = run(tmp_path, dataset, until=DAYS[3])
    damage(tmp_path / "events" / f"{DAYS[1]}.parquet")
    said: list[str] = []
    after = run(tmp_path, dataset, progress=lambda line: said.append(str(line)))
    assert before.facts["days"].items() <= after.facts["days"].items() and after.facts["test_day"] == str(DAYS[-1])
    assert not any("held back" in line for line in after.facts["warnings"])
    assert "No day waits for them" in "\n".join(said)


def test_the_file_of_a_day_that_is_not_over_may_be_half_there(tmp_path: Path) -> None:
    dataset = source(tmp_path, "{}.parquet")
    damage(tmp_path / "events" / f"{DAYS[-1]}.parquet")
    done = run(tmp_path, dataset, now=at(4, 3))
    assert done.facts["test_day"] == str(DAYS[3])


def test_histories_are_not_taken_without_a_file(tmp_path: Path) -> None:
    dataset = source(tmp_path, "{}.parquet").model_copy(update={"split": "leave_one_out"})
    damage(tmp_path / "events" / f"{DAYS[2]}.parquet")
    with pytest.raises(InputError, match=rf"cannot be read.*It may hold events of {DAYS[2]}: days before it are done"):
        run(tmp_path, dataset)
    assert run(tmp_path, dataset, until=DAYS[1]).facts["events"] == 18


def test_a_name_without_a_day_says_nothing_of_any(tmp_path: Path) -> None:
    dataset = source(tmp_path, "{}.parquet")
    (tmp_path / "events" / "late.parquet").write_bytes(b"PAR1 nothing")
    for until in (DAYS[1], DAYS[-1]):
        with pytest.raises(InputError, match=r"late.parquet.*cannot be read") as caught:
            run(tmp_path, dataset, until=until)
        assert "may hold events of" not in str(caught.value)


def test_of_a_file_whose_name_says_no_day_the_ledger_knows_the_days(tmp_path: Path) -> None:
    """One of days that are all before the newest finished one has ceased to grow; else what is new in it nobody knows."""
    names = [f"part-{number}.parquet" for number in range(5)]
    for day in range(4):
        write(tmp_path, day, names[day])
    dataset, said = dataset_of(tmp_path, events={"path": "events"}), list[str]()
    before = run(tmp_path, dataset, now=at(5, 3))
    assert before.facts["test_day"] == str(DAYS[3])
    write(tmp_path, 4, names[4])
    old, newest = (tmp_path / "events" / names[number] for number in (1, 3))
    whole = newest.read_bytes()
    damage(newest)
    with pytest.raises(
        InputError, match=rf"{names[3]}.*cannot be read.*It may hold events of {DAYS[4]}: other days are"
    ):
        run(tmp_path, dataset, now=at(5, 3))
    assert run(tmp_path, dataset, now=at(5, 3), until=DAYS[3]).facts["days"] == before.facts["days"], (
        "finished days need no file"
    )
    newest.write_bytes(whole)
    damage(old)
    after = run(tmp_path, dataset, now=at(5, 3), progress=lambda line: said.append(str(line)))
    assert before.facts["days"].items() <= after.facts["days"].items() and after.facts["test_day"] == str(DAYS[4])
    assert f"events/{names[1]}" in "\n".join(said) and "No day waits for them" in "\n".join(said)


def test_a_night_without_a_day_asked_for_is_refused_too(tmp_path: Path) -> None:
    """What is newest would be another day than the one that is there."""
    dataset = source(tmp_path, "{}.parquet")
    damage(tmp_path / "events" / f"{DAYS[-1]}.parquet")
    with pytest.raises(InputError, match=rf"cannot be read.*It may hold events of {DAYS[-1]}"):
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
