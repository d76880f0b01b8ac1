"""Quarantine: bad rows are set aside whole, under the first rule they break."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl

from preprocessing.checks import rules, split
from preprocessing.events import read_events
from tests.preprocessing.small import NOW, at, dataset_of, run, three_days, write


def test_the_first_broken_rule_names_the_row(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            ("a", "x", at(0).isoformat()),
            (None, None, "soon"),
            ("a", None, None),
            ("a", "x", None),
            ("a", "x", "soon"),
            ("a", "x", (NOW + timedelta(seconds=1)).isoformat()),
            ("a", "", at(0).isoformat()),
        ],
    )
    dataset = dataset_of(tmp_path)
    events = read_events(dataset).collect()
    good, bad, counts = split(events, rules(dataset, events.columns, NOW, None))
    assert good.rows() == [("a", "x", at(0))]
    assert bad["rule"].to_list() == [
        "user_id_null",
        "item_id_null",
        "timestamp_null",
        "timestamp_unparsable",
        "in_future",
        "item_id_null",
    ]
    assert bad["timestamp"].to_list()[:4] == ["soon", None, None, "soon"]
    assert counts == {
        "item_id_null": 2,
        "in_future": 1,
        "timestamp_null": 1,
        "timestamp_unparsable": 1,
        "user_id_null": 1,
    }


def test_bad_rows_are_written_as_they_were(tmp_path: Path) -> None:
    rows = [(1, f"{number}", time) for number, (_, _, time) in enumerate(three_days())]
    write(tmp_path, [*rows, (1, "A-7", at(0))])
    manifest = run(tmp_path, dataset_of(tmp_path, events={"id_type": "integer"}))
    assert manifest.facts["quarantined"] == {"item_id_unparsable": 1}
    bad = pl.read_parquet(manifest.folder / "quarantine" / "part-0.parquet")
    assert bad.rows() == [(1, "A-7", at(0), "item_id_unparsable")]


def test_unknown_items_are_quarantined_only_when_asked(tmp_path: Path) -> None:
    write(tmp_path, three_days())
    pl.DataFrame({"item_id": ["x", "y"]}).write_parquet(tmp_path / "items.parquet")
    columns = {"item_id": "item_id"}
    kept = run(tmp_path, dataset_of(tmp_path, items={"columns": columns}))
    assert kept.facts["quarantined"] == {}
    assert not (kept.folder / "quarantine").exists()
    strict = run(tmp_path, dataset_of(tmp_path, items={"columns": columns, "unknown": "quarantine"}))
    assert strict.facts["quarantined"] == {"unknown_item": 3}


def test_given_sessions_need_their_id(tmp_path: Path) -> None:
    columns = ("user_id", "item_id", "timestamp", "session_id")
    write(tmp_path, [(*row, None if n == 0 else n // 5) for n, row in enumerate(three_days())], columns)
    given = dataset_of(tmp_path, columns=("session_id",), sessions={"rule": "given"})
    assert run(tmp_path, given).facts["quarantined"] == {"session_id_null": 1}
    assert run(tmp_path, dataset_of(tmp_path, columns=("session_id",))).facts["quarantined"] == {}
