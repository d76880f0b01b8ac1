"""No file is passed over in silence: read, or listed with why it is not."""

from __future__ import annotations

import gzip
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from preprocessing.source.events import EventFiles
from preprocessing.source.files import source_files
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, run

compress = partial(gzip.compress, mtime=0)  # the same bytes in every process that collects tests

ROWS = "user_id,item_id,timestamp\nu,i,2024-01-01\n"
JSON = '{"user_id": "u", "item_id": "i", "timestamp": "2024-01-01"}\n'


def put(folder: Path, **contents: str | bytes) -> None:
    """Files of these names (with __ for a dot) in the folder `log`."""
    for name, content in contents.items():
        place = folder / "log" / name.replace("__", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)


def files_of(folder: Path) -> EventFiles:
    return EventFiles(dataset_of(folder, events={"path": "log"}))


def test_endings_of_any_case_are_read(tmp_path: Path) -> None:
    put(tmp_path, a__csv=ROWS, b__CSV=ROWS, c__Csv__Gz=compress(ROWS.encode()))
    files = files_of(tmp_path)
    assert files.scan().collect().height == 3 and files.left_out == ()
    pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "timestamp": [at(0)]}).write_parquet(tmp_path / "b.Parquet")
    assert EventFiles(dataset_of(tmp_path, events={"path": "*"})).scan().collect().height == 1


def test_what_is_left_out_is_listed_with_why(tmp_path: Path) -> None:
    put(tmp_path, part="x", b__txt="x", c__csv__zip=b"PK", d__parquet__gz=b"x", e__csv="", _SUCCESS="", __f__csv=ROWS)
    put(tmp_path, a__csv=ROWS)
    files = files_of(tmp_path)
    assert [file.path for file in files.files] == ["log/a.csv"] and files.scan().collect().height == 1
    reasons = {name.removeprefix("log/"): reason for name, reason in files.left_out}
    assert reasons.keys() == {"part", "b.txt", "c.csv.zip", "d.parquet.gz", "e.csv", "_SUCCESS", ".f.csv"}
    for name, words in {
        "part": "`format`",
        "c.csv.zip": "unpack",
        "d.parquet.gz": "unpack",
        "e.csv": "no bytes",
    }.items():
        assert words in reasons[name]
    for name in ("_SUCCESS", ".f.csv"):
        assert "begins with" in reasons[name]


def test_files_of_any_ending_are_read_as_stated(tmp_path: Path) -> None:
    put(tmp_path, part0=ROWS, b__txt=ROWS, c__json=JSON)
    files = EventFiles(dataset_of(tmp_path, events={"path": "log", "format": "csv"}))
    assert files.scan().collect().height == 2
    assert files.left_out == (("log/c.json", "it ends like JSON lines, and the format is csv"),)


@pytest.mark.parametrize(
    ("ending", "full", "blanks"),
    [
        ("csv", ROWS, ["", " \n", "\n\n", "\ufeff", compress(b""), "user_id,item_id,timestamp\n"]),
        ("jsonl", JSON, ["", " \n", "\n\n", "[]", compress(b"")]),
    ],
)
def test_files_with_nothing_in_them_have_no_rows(
    tmp_path: Path, ending: str, full: str, blanks: list[str | bytes]
) -> None:
    for number, content in enumerate([*blanks, full]):
        put(tmp_path, **{f"{number}__{ending}": content})
    files = files_of(tmp_path)
    assert files.scan(number=True).collect().height == 1
    assert files.scan(files.files[:1]).collect().is_empty()
    assert [name for name, _ in files.left_out] == [f"log/0.{ending}"]


def test_parquet_files_of_no_bytes_have_no_rows(tmp_path: Path) -> None:
    put(tmp_path, a__parquet=b"")
    with pytest.raises(InputError, match=r"no file at .* has any rows. Left out: log/a.parquet \(it has no bytes\)"):
        source_files(dataset_of(tmp_path, events={"path": "log"}))
    pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "timestamp": [at(0)]}).write_parquet(
        tmp_path / "log" / "b.parquet"
    )
    assert files_of(tmp_path).scan().collect().height == 1


def test_sources_with_nothing_at_all_are_refused(tmp_path: Path) -> None:
    put(tmp_path, a__csv=" \n", b__csv="\n")
    with pytest.raises(InputError, match="there is nothing in it"):
        files_of(tmp_path).scan()


def test_a_folder_with_nothing_that_is_read_says_what_is_there(tmp_path: Path) -> None:
    put(tmp_path, a__txt=ROWS)
    with pytest.raises(InputError, match=r"Left out: log/a.txt \(its ending is not known: `format`"):
        files_of(tmp_path)
    with pytest.raises(InputError, match=r"set events.format to csv"):
        source_files(dataset_of(tmp_path, events={"path": "log/a.txt"}))


def test_an_empty_part_changes_no_night(tmp_path: Path) -> None:
    rows = [f"u,{item},2024-01-0{day}T10:0{minute}:00Z" for day in (1, 2, 3) for minute, item in enumerate("xyz")]
    put(tmp_path, part0__csv="\n".join(["user_id,item_id,timestamp", *rows]), part1__csv="", part2__csv=" ")
    manifest = run(tmp_path, dataset_of(tmp_path, events={"path": "log"}))
    assert manifest.facts["rows_in"] == 9 and manifest.facts["quarantined"] == {}
