"""CSV files as they come: read with the very fields they hold, or refused with the line; nothing lost, nothing made up."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.source.events import EventFiles, read_events
from preprocessing.source.files import PLAIN
from preprocessing.source.listing import SourceFile
from preprocessing.source.lookups import read_items
from preprocessing.source.quoting import layout_of
from schemas.errors import InputError
from tests.preprocessing import small
from tests.preprocessing.small import COLUMNS, dataset_of, run
from tests.slow import examples

compress = partial(gzip.compress, mtime=0)  # the same bytes in every process that collects tests

HEADER = "user_id,timestamp,item_id,title"


def events_of(folder: Path, content: str | bytes, name: str = "a.csv", **events: Any) -> pl.DataFrame:
    """What is read of one file in the folder `log`."""
    return small.events_of(folder, content, name, **events)


def rows_of(titles: list[str], header: str = HEADER) -> str:
    """A row for each title, which is written as it is."""
    rows = [f"u{number % 3},2024-01-01T10:{number:02}:00Z,i{number},{title}" for number, title in enumerate(titles)]
    return "\n".join([header, *rows, ""])


@pytest.mark.parametrize(
    "titles",
    [
        ['TV 32" flat', "TV", 'TV 40" flat', "radio"],
        ['TV 32" or 40"', 'x"', "TV", '"'],
        ['"best" TV', "TV", "radio", '3.5" disk'],
        ["plain", '""', "x", "y"],
    ],
)
def test_quotes_in_titles_lose_no_rows(tmp_path: Path, titles: list[str]) -> None:
    text = rows_of(titles * 6)
    assert events_of(tmp_path, text)["item_id"].to_list() == [f"i{number}" for number in range(24)]
    assert events_of(tmp_path, text, columns=("title",))["title"].to_list() == [
        None if title == '""' else title for title in titles * 6
    ]


def test_quoted_fields_and_inch_marks_in_one_file(tmp_path: Path) -> None:
    titles = ['"TV, 32"', 'TV 32" x', '"say ""TV"""', '"two\nlines"', "plain"]
    read = events_of(tmp_path, rows_of(titles), columns=("title",))
    assert read["title"].to_list() == ["TV, 32", 'TV 32" x', 'say "TV"', "two\nlines", "plain"]
    assert read["item_id"].to_list() == [f"i{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("titles", "line", "words"),
    [
        (["TV", "TV, big", "x"], 3, "5 fields, the first line 4"),
        (['"a, b"', "TV, big"], 3, "5 fields"),
        (['"a, b"', '"never closed', "x"], 3, "not closed"),
        (['"a, b"', '"TV 32" flat"'], 3, "not closed"),
        (['"a, b"', "x", '"open at the end'], 4, "not closed"),
        (['"TV 32\\" flat"', "x"], 2, "not closed"),
    ],
)
def test_rows_that_do_not_fit_are_refused_with_their_line(
    tmp_path: Path, titles: list[str], line: int, words: str
) -> None:
    text = rows_of(titles)
    with pytest.raises(InputError) as error:
        events_of(tmp_path, text)
    for part in (f"a.csv, line {line}:", repr(text.split("\n")[line - 1])[1:40], words):
        assert part in str(error.value)


@pytest.mark.parametrize("row", ["u,2024-01-01", "u,2024-01-01,i,x,", "u", "  "])
def test_ragged_rows_are_refused(tmp_path: Path, row: str) -> None:
    text = rows_of(["a", "b"]) + row + "\n"
    with pytest.raises(InputError, match="line 4: "):
        events_of(tmp_path, text)
    with pytest.raises(InputError, match="line 4: "):  # wherever the file is cut into blocks
        events_of(tmp_path, text.removesuffix("\n"))


def test_lines_that_may_be_one_row_or_several_are_not_guessed(tmp_path: Path) -> None:
    text = 'user_id,timestamp,item_id\nu,2024-01-01,"x\ny,2024-01-02,"\n'
    with pytest.raises(InputError, match=r"line 2:.*quote: none"):
        events_of(tmp_path, text)
    assert events_of(tmp_path, text, quote='"')["item_id"].to_list() == ["x\ny,2024-01-02,"]
    assert events_of(tmp_path, text, quote="none")["item_id"].to_list() == ['"x', '"']


FIELDS = st.sampled_from(["", "a", 'a"b', '"a', 'a"', "x,y", '3"', '""', "a\nb", '"x"', "é", ";"])


@given(
    rows=st.lists(st.lists(FIELDS, min_size=3, max_size=3), min_size=1, max_size=6),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
    wanted=st.permutations(COLUMNS).flatmap(lambda names: st.integers(1, 3).map(lambda count: names[:count])),
)
@examples(150)
def test_what_a_csv_writer_wrote_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], quoting: Any, end: str, wanted: list[str]
) -> None:
    from preprocessing.source.formats import columns_of, scan

    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end, quoting=quoting)
    writer.writerows([COLUMNS, *([f"r{number}", *row[1:]] for number, row in enumerate(rows))])
    place = tmp_path_factory.mktemp("csv") / "a.csv"
    place.write_bytes(out.getvalue().encode())
    file = SourceFile("a.csv", str(place), place.stat().st_size, "")
    (columns,) = columns_of([file], wanted)
    try:
        read = scan([file], columns.stored, paths=False).select(wanted).collect()
    except InputError as error:
        assert "several lines" in str(error)
        return
    expected = [{**dict(zip(COLUMNS, row, strict=True)), "user_id": f"r{number}"} for number, row in enumerate(rows)]
    assert read.rows() == [tuple(row[name] or None for name in wanted) for row in expected]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("\ufeff" + rows_of(["a", "b"]), "a.csv"),
        (rows_of(["a", "b"]).replace("\n", "\r\n"), "a.csv"),
        (rows_of(["a", "b"]).replace("\n", "\n\n"), "a.csv"),
        ("\n" + rows_of(["a", "b"]).rstrip(), "a.csv"),
        (rows_of(["é", "ü"]).encode("utf-16"), "a.csv"),
        (rows_of(["é", "ü"]).encode("latin-1"), "a.csv"),  # of a column that nobody wants
        (rows_of(["a", "b"]), "A.CSV"),
        (rows_of(["a", "b"]).replace(",", "\t"), "a.TSV"),
        (compress(rows_of(["a", "b"]).encode()), "a.CSV.GZ"),
        (compress(rows_of(["a"]).encode()) + compress(b"u,2024-01-01,i1,x\n"), "a.csv.gz"),
        (bz2.compress(rows_of(["a", "b"]).encode()), "a.csv.bz2"),
    ],
)
def test_how_text_is_written_changes_nothing(tmp_path: Path, content: str | bytes, name: str) -> None:
    assert events_of(tmp_path, content, name)["item_id"].to_list() == ["i0", "i1"]


def test_what_is_set_is_used(tmp_path: Path) -> None:
    plain = rows_of(["é", "12,5"], HEADER)
    for content, events in (
        (plain.replace(",", ";").replace("12;5", "12,5"), {"separator": ";"}),
        (plain.replace("12,5", "12.5").replace(",", "|").replace("12.5", "12,5"), {"separator": "|"}),
        (plain.replace("12,5", "12.5").replace(",", "::").replace("12.5", "12,5"), {"separator": "::"}),
        (plain.replace("12,5", "'12,5'"), {"quote": "'"}),
        (plain.replace("12,5", '"12,5"').encode("latin-1"), {"encoding": "latin-1"}),
        (plain.replace("12,5", '"12,5"').encode("cp1252"), {"encoding": "windows-1252"}),
        (plain.replace("12,5", '"12,5"').encode("utf-16-le"), {"encoding": "utf-16-le"}),
    ):
        read = events_of(tmp_path, content, columns=("title",), **events)
        assert read.select("item_id", "title").rows() == [("i0", "é"), ("i1", "12,5")], events


def test_columns_by_place(tmp_path: Path) -> None:
    text = rows_of(["a", "b"]).partition("\n")[2]
    columns = {"user_id": 1, "item_id": "column_3", "timestamp": 2}
    assert events_of(tmp_path, text, columns=columns, header=False)["item_id"].to_list() == ["i0", "i1"]


def test_a_decimal_comma(tmp_path: Path) -> None:
    text = "user_id;timestamp;item_id;price\nu;2024-01-01;1.250;12,50\nu;2024-01-02;1,5;1.250,75\nu;2024-01-03;3;7\n"
    read = events_of(tmp_path, text, columns=("price",), separator=";", decimal=",", types={"price": "float"})
    assert read.select("item_id", "price").rows() == [("1.250", 12.5), ("1,5", 1250.75), ("3", 7.0)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (rows_of(["a"]).replace(",", ";"), "separator: ';'"),
        (rows_of(["a"]).replace(",", "\t"), "separator: '\\t'"),
        (rows_of(["a"]).partition("\n")[2], "header: false"),
        (rows_of(["a"]).encode("utf-16-le"), "utf-16"),
        (rows_of(["a"]).replace("item_id", "größe").encode("latin-1"), "latin-1"),
        (rows_of(["a"]).replace("i0", "é").encode("latin-1"), "latin-1"),
        (rows_of(["a"]).replace("title", "item_id"), "'item_id' is there twice"),
        (compress(rows_of(["a"] * 50).encode())[:-9], "a.csv: cannot be unpacked"),
    ],
)
def test_messages_say_what_would_mend_it(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(InputError) as error:
        events_of(tmp_path, content)
    assert words in str(error.value) and "a.csv" in str(error.value)


def test_headers_that_are_there_twice_matter_only_when_wanted(tmp_path: Path) -> None:
    assert events_of(tmp_path, rows_of(["a,b"], f"{HEADER},title")).height == 1


def test_null_words(tmp_path: Path) -> None:
    text = rows_of(["a"] * 5)
    for number, word in enumerate(("\\N", "NULL", "null", "")):
        text = text.replace(f"i{number},", f"{word},")
    assert events_of(tmp_path, text)["item_id"].to_list() == [None] * 4 + ["i4"]
    kept = events_of(tmp_path, text, null_words=["i4"])["item_id"].to_list()
    assert kept == ["\\N", "NULL", "null", None, None]
    pl.DataFrame({"user_id": ["u", "NULL"], "item_id": ["x", "-1"], "timestamp": ["2024-01-01"] * 2}).write_parquet(
        tmp_path / "b.parquet"
    )
    dataset = dataset_of(tmp_path, events={"path": "b.parquet"})
    assert read_events(dataset).collect()["user_id"].to_list() == ["u", "NULL"]  # Parquet has nulls of its own
    worded = dataset_of(tmp_path, events={"path": "b.parquet", "null_words": [None, -1]})  # as YAML reads NULL and -1
    assert read_events(worded).collect().select("user_id", "item_id").rows() == [("u", "x"), (None, None)]


def test_rows_with_null_words_for_ids_are_counted(tmp_path: Path) -> None:
    rows = [f"u,2024-01-0{day}T10:0{minute}:00Z,i{minute}" for day in (1, 2, 3) for minute in range(4)]
    rows[1] = rows[1].replace("u,", "\\N,")
    rows[2] = rows[2].replace("i2", "NULL")
    (tmp_path / "a.csv").write_text("\n".join(["user_id,timestamp,item_id", *rows]))
    manifest = run(tmp_path, dataset_of(tmp_path, events={"path": "a.csv"}))
    assert manifest.facts["rows_in"] == 12
    assert sum(manifest.facts["quarantined"].values()) == 2


def test_item_tables_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_bytes("1;caf\xe9;12,5\n2;NULL;3\n".encode("latin-1"))
    items = {
        "path": "items.txt",
        "format": "csv",
        "separator": ";",
        "header": False,
        "encoding": "latin-1",
        "decimal": ",",
        "columns": {"item_id": 1, "title": 2, "price": 3},
        "types": {"price": "float"},
    }
    read = read_items(dataset_of(tmp_path, items=items)).collect()
    assert read.rows() == [("1", "café", 12.5), ("2", None, 3.0)]


def test_files_that_polars_reads_right_are_left_to_it(tmp_path: Path) -> None:
    """One native scan of all files, for usual CSV with and without quotes."""
    for number, title in enumerate(("a", "b", '"c"')):
        (tmp_path / f"{number}.csv").write_text(rows_of([title, 'x"' if number == 1 else "y"]))
    files = EventFiles(dataset_of(tmp_path, events={"path": "."}))
    assert [layout_of(file, PLAIN).native for file in files.files] == [True, True, True]
    assert "PYTHON SCAN" not in files.scan().explain().upper()
    assert files.scan().collect().height == 6


def test_a_point_is_no_decimal_mark_beside_a_comma(tmp_path: Path) -> None:
    fits = {"1,25": 1.25, "1.250": 1250.0, "1.250,50": 1250.5, "-12.250.000,5": -12_250_000.5, "7": 7.0, "1e3": 1000.0}
    odd = ["1.25", "0.125", "1250.5", ".5", "1,250.50", "12.25.000"]
    rows = [f"u;2024-01-01T10:{number:02}:00Z;i;{text}\n" for number, text in enumerate([*fits, *odd])]
    text = "user_id;timestamp;item_id;price\n" + "".join(rows)
    read = events_of(tmp_path, text, columns=("price",), separator=";", decimal=",", types={"price": "float"})
    assert read["price"].to_list() == [*fits.values(), *[None] * len(odd)]
    assert read["price as found"].to_list()[-len(odd) :] == odd


def test_null_words_of_folders_are_null(tmp_path: Path) -> None:
    columns = {**{name: name for name in COLUMNS}, "c": "c"}
    for name, value in (("c=NULL", None), ("c=", None), ("c=de", "de"), ("c=n%2Fa", "n/a")):
        read = events_of(
            tmp_path / value.replace("/", "") if value else tmp_path / "null" / name,
            rows_of(["x"]),
            f"{name}/a.csv",
            columns=columns,
        )
        assert read["c"].to_list() == [value]
    read = events_of(tmp_path / "own", rows_of(["x"]), "c=de/a.csv", columns=columns, null_words=["de"])
    assert read["c"].to_list() == [None]


@pytest.mark.parametrize("long", [3_000_000, 9_000_000])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.bz2"])
def test_fields_longer_than_a_block(tmp_path: Path, long: int, name: str) -> None:
    titles = ["ä" * 400_000] * 5 + ["é" * long, "short"] * 2
    content = rows_of(titles).encode("latin-1")
    read = events_of(
        tmp_path, bz2.compress(content, 1) if "bz2" in name else content, name, columns=("title",), encoding="latin-1"
    )
    assert read["title"].to_list() == titles
    assert read["item_id"].to_list() == [f"i{number}" for number in range(len(titles))]


def test_a_long_field_beside_a_stray_quote(tmp_path: Path) -> None:
    titles = ['"a, b"', "x" * 200_000, '5" inch']
    assert events_of(tmp_path, rows_of(titles), columns=("title",))["title"].to_list() == ["a, b", *titles[1:]]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_line_ends_written_twice_are_refused_with_the_file(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(InputError, match=r"a\.csv: its first line ends with \\r\\r\\n"):
        events_of(tmp_path, rows_of(["x", "y"]).replace("\n", "\r\r\n"), encoding=encoding)


def test_damaged_json_in_a_field_is_named(tmp_path: Path) -> None:
    text = 'user_id;timestamp;items\nu;2024-01-01;"[{""id"":""x""}]"\nu;2024-01-01;[1\n'
    columns = {"user_id": "user_id", "timestamp": "timestamp", "item_id": "items[].id"}
    with pytest.raises(InputError, match=r"a\.csv: column 'items': '\[1' is no JSON list .* leave it empty\.$"):
        events_of(tmp_path, text, columns=columns, separator=";")


@pytest.mark.parametrize("path", ["title.brand", "title[0]", "title[key=a].value"])
def test_a_path_into_plain_text_leads_nowhere(tmp_path: Path, path: str) -> None:
    columns = {**{name: name for name in COLUMNS}, "brand": path}
    with pytest.raises(
        InputError, match=r"column for 'brand': Unknown column .*Column 'title' holds text that is no JSON"
    ):
        events_of(tmp_path, rows_of(["plain", "text", ""]), columns=columns)
    assert events_of(tmp_path, rows_of(["", "NULL"]), columns=columns)["brand"].to_list() == [None, None]
