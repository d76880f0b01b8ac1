"""Names that preparation uses itself are refused on every way in: no input ever tells when its session ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.execution.workers import Workers
from schemas.columns import RESERVED
from schemas.errors import InputError
from tests.preprocessing.small import at, content, dataset_of, run, three_days, write

COLUMNS = ("user_id", "item_id", "timestamp")
OTHERS = (
    "value",
    "count",
    "id",
    "row",
    "rows",
    "last_seen",
    "len",
    "key",
    "index",
    "name",
    "admitted",
    "literal",
    "order",
)


def usual(more: dict[str, str]) -> dict[str, str]:
    return {name: name for name in COLUMNS} | more


@pytest.mark.parametrize("name", RESERVED)
def test_own_names_are_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    said = rf"column '{name}' is Overnight's own .*; map the file's column under another name, such as file_{name}"
    with pytest.raises(ValueError, match=said):
        dataset_of(tmp_path, columns=usual({name: "of the file"}))
    for part, key in (("items", "item_id"), ("users", "user_id")):
        with pytest.raises(ValueError, match=said):
            dataset_of(tmp_path, **{part: {"columns": {key: "id", name: "of the file"}}})
    with pytest.raises(ValueError, match=f"column '{name}' is Overnight's own"):
        dataset_of(tmp_path, features={"x": {"column": name, "encode": "category"}})


@pytest.mark.parametrize("name", ["event day", "source file", "end as found", "rule code", "", "7th", "a-b", "a.b"])
def test_names_are_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be letters, digits and underscores"):
        dataset_of(tmp_path, columns=usual({name: "of the file"}))


@pytest.mark.parametrize("name", ["end", "day", "start", "length"])
def test_own_names_are_no_labels(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"labels: column '{name}' needs another name"):
        dataset_of(tmp_path, labels=[name])


@pytest.mark.parametrize(
    "step",
    [
        {"derive": {"columns": {"end": "item_id"}}},
        {"rename": {"columns": {"kind": "day"}}},
        {"label_sessions": {"event_types": ["view"], "name": "length"}},
        {"dwell_time": {"name": "start"}},
    ],
)
def test_steps_add_no_column_of_such_a_name(tmp_path: Path, step: Any) -> None:
    write(tmp_path, [(*row, "x", "view") for row in three_days()], (*COLUMNS, "kind", "event_type"))
    with pytest.raises(InputError, match="Overnight's own"):
        run(tmp_path, dataset_of(tmp_path, columns=("kind", "event_type"), steps=[step]))


@pytest.mark.parametrize(
    "options", [{"encode": "relative_price", "by": "end"}, {"encode": "target_encoding", "target": "end"}]
)
def test_encoders_do_not_see_the_sessions_end(tmp_path: Path, options: Any) -> None:
    write(tmp_path, [(*row, 1.0) for row in three_days()], (*COLUMNS, "price"))
    dataset = dataset_of(tmp_path, columns=("price",), features={"x": {"column": "price", **options}})
    with pytest.raises(InputError, match="Unknown column 'end'"):
        run(tmp_path, dataset)


def test_a_file_may_use_any_name(tmp_path: Path) -> None:
    names = [*RESERVED, "event day", "rule code", "end as found", *OTHERS]
    frame = pl.DataFrame(three_days(), schema=list(COLUMNS), orient="row")
    frame = frame.with_columns(pl.lit(f"of {name}").alias(name) for name in names)
    frame.write_parquet(tmp_path / "events.parquet")
    mapping = {f"file_{place}": name for place, name in enumerate(names)} | {name: name for name in OTHERS}
    features = {f"f{name}": {"column": name, "encode": "category"} for name in mapping}
    manifest = run(tmp_path, dataset_of(tmp_path, columns=usual(mapping), features=features))
    assert manifest.facts["events"] == 15
    for name, source in mapping.items():
        values = pl.read_parquet(manifest.folder / "vocabularies" / f"f{name}.parquet")["value"].to_list()
        assert values == [f"of {source}"]


def test_columns_of_these_names_pass_through_checks_and_joins(tmp_path: Path) -> None:
    rows = [(*row, float(place)) for place, row in enumerate(three_days())]
    write(tmp_path, [*rows, ("a", "x", at(9), -1.0)], (*COLUMNS, "count"))
    pl.DataFrame({"item_id": ["x", "y", "z"], "value": [1, 2, 3]}).write_parquet(tmp_path / "items.parquet")
    dataset = dataset_of(
        tmp_path,
        columns=("count",),
        items={"columns": {"item_id": "item_id", "value": "value"}},
        steps=[{"join_items": {"columns": ["value"]}}],
        checks=[{"in_range": {"column": "count", "min": 0}}],
        features={"v": {"column": "value", "encode": "category"}, "c": {"column": "count", "encode": "standardise"}},
    )
    manifest = run(tmp_path, dataset)
    assert manifest.facts["events"] == 15
    assert pl.read_parquet(manifest.folder / "vocabularies" / "v.parquet")["value"].sort().to_list() == [1, 2, 3]


def test_folders_may_be_named_like_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "data[1]*?"
    folder.mkdir()
    write(folder, [row for row in three_days() if row[2] < at(2)])
    run(folder)
    write(folder, three_days())
    by_night = run(folder, workers=Workers(min_buckets=3))
    assert by_night.facts["events"] == 15
    (tmp_path / "plain").mkdir()
    write(tmp_path / "plain", three_days())
    assert content(run(tmp_path / "plain")) == content(by_night)
