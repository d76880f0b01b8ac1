"""Types of events are what the files hold, integers or text; YAML may write them either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, run, sessions_of

STORED = [pl.UInt8, pl.Int64, pl.Float64, pl.String, pl.Categorical, pl.Decimal(3, 0)]


def events_in(folder: Path, dtype: Any, ending: str = "parquet", words: bool = False) -> None:
    rows = [(day, place) for day in range(3) for place in range(6)]
    kinds: list[Any] = [place % 3 for _, place in rows]
    kinds = [["view", "cart", "buy"][kind] for kind in kinds] if words else kinds
    if dtype in (pl.String, pl.Categorical):
        kinds = list(map(str, kinds))
    frame = pl.DataFrame(
        {
            "user_id": ["a"] * 18,
            "item_id": [f"i{place}" for _, place in rows],
            "timestamp": [at(day, 12, place).isoformat() for day, place in rows],
            "event_type": pl.Series(kinds, dtype=dtype),
        }
    )
    place = folder / f"events.{ending}"
    frame.write_parquet(place) if ending == "parquet" else frame.write_csv(place)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("keep", [[0, 1], ["0", "1"], [0, "1"]])
def test_a_filter_takes_numbers_and_their_text(tmp_path: Path, dtype: Any, keep: list[Any]) -> None:
    events_in(tmp_path, dtype)
    steps = [{"filter_event_types": {"keep": keep}}, {"label_sessions": {"event_types": keep[1:]}}]
    checks = [{"known_values": {"column": "event_type", "values": [0, 1, 2]}}]
    dataset = dataset_of(tmp_path, columns=("event_type",), steps=steps, checks=checks, labels=["label"])
    manifest = run(tmp_path, dataset)
    assert manifest.facts["dropped"]["filter_event_types"] == 6 and manifest.facts["quarantined"] == {}
    assert sessions_of(manifest)["label"].to_list() == [1, 1, 1]


@pytest.mark.parametrize("keep", [[0, 1], ["0", "1"]])
def test_text_files_too(tmp_path: Path, keep: list[Any]) -> None:
    events_in(tmp_path, pl.Int64, "csv")
    for types in ({}, {"event_type": "integer"}):
        dataset = dataset_of(
            tmp_path,
            columns=("event_type",),
            events={"path": "events.csv", "types": types},
            steps=[{"filter_event_types": {"keep": keep}}],
        )
        assert run(tmp_path, dataset).facts["dropped"]["filter_event_types"] == 6


def test_words_that_integers_cannot_be_are_refused(tmp_path: Path) -> None:
    events_in(tmp_path, pl.Int64)
    for step in ({"filter_event_types": {"keep": ["view"]}}, {"label_sessions": {"event_types": ["view"]}}):
        with pytest.raises(InputError, match="event_type: 'view' is not an integer, which the column holds"):
            run(tmp_path, dataset_of(tmp_path, columns=("event_type",), steps=[step]))


def test_words_stay_words(tmp_path: Path) -> None:
    events_in(tmp_path, pl.String, words=True)
    steps = [{"filter_event_types": {"keep": ["view", "cart"]}}]
    manifest = run(tmp_path, dataset_of(tmp_path, columns=("event_type",), steps=steps))
    assert manifest.facts["dropped"]["filter_event_types"] == 6


@pytest.mark.parametrize("split", ["day", "leave_one_out"])
def test_a_filter_that_leaves_nothing_lists_the_types_that_are_there(tmp_path: Path, split: str) -> None:
    events_in(tmp_path, pl.String, words=True)
    steps = [{"filter_event_types": {"keep": ["Ansicht", "Kauf"]}}]
    with pytest.raises(InputError) as caught:
        run(tmp_path, dataset_of(tmp_path, columns=("event_type",), steps=steps, split=split))
    said = str(caught.value)
    assert (
        "filter_event_types keeps 'Ansicht', 'Kauf', and event_type holds 'buy' (6), 'cart' (6), 'view' (6): name"
        in said
    ), said
