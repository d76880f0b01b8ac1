"""Steps of other people that do what no step may: refused with their name and file, before or while events are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.plan.plan import Plan
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, run, three_days, write
from tests.schemas.own import part

STEP = """import polars as pl
from preprocessing.steps import Step


class OddStep(Step):
    "Odd."

    def METHOD(self, events):
        BODY
"""


def dataset_with(folder: Path, method: str, body: str) -> Any:
    part(folder / "mine", "steps/odd_step.py", STEP.replace("METHOD", method).replace("BODY", body))
    write(folder, three_days())
    return dataset_of(folder, plugins=[str(folder / "mine")], steps=["odd_step"])


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        ("read", "return events.filter(pl.col('item_id') != 'x')", "read made 9 rows of 15; .* apply"),
        ("read", "return pl.concat([events, events])", "read made 30 rows of 15"),
        ("read", "return events.collect()", "read returned a DataFrame; .*LazyFrame"),
        ("read", "raise ValueError('no such table')", "read failed with ValueError: no such table"),
        ("read", "return events.drop('item_id')", "read took the column 'item_id' away"),
        ("read", "return events.with_columns(position=1)", "'position' is the order of events"),
        ("apply", "return events.collect()", "apply returned a DataFrame"),
        ("apply", "events.filter(True)", "apply returned a NoneType"),
        ("apply", "return events.filter(pl.col('colour') == 1)", "apply failed with ColumnNotFoundError: .*colour"),
        ("apply", "raise KeyError('k')", "apply failed with KeyError: 'k'"),
        ("apply", "return events.with_columns(pl.lit(1).alias('a b'))", "the new column 'a b' must be letters"),
        ("apply", "return events.with_columns(session_id=1)", "'session_id' is the session"),
    ],
)
def test_it_is_refused_with_its_file(tmp_path: Path, method: str, body: str, message: str) -> None:
    dataset = dataset_with(tmp_path, method, body)
    with pytest.raises(InputError, match=rf"step odd_step \(.*mine/steps/odd_step.py\): (apply: |read: )?{message}"):
        run(tmp_path, dataset)


def test_columns_may_be_added_and_changed(tmp_path: Path) -> None:
    dataset = dataset_with(tmp_path, "read", "return events.with_columns(n=pl.lit(1))")
    assert run(tmp_path, dataset).facts["rows_in"] == 15


COLUMNS = pl.Schema({"user_id": pl.String(), "item_id": pl.String(), "timestamp": pl.Datetime("us", "UTC")})


@pytest.mark.parametrize("name", ["position", "session_id", "valid_from", "a b", "price as found", "7th", "", "day"])
@pytest.mark.parametrize("step", ["derive", "rename", "dwell_time"])
def test_names_of_new_columns_are_words_without_a_meaning(step: str, name: str) -> None:
    columns = {**COLUMNS, "price": pl.Float64()}
    options = {"derive": {name: "price"}, "rename": {"price": name}}
    given = {"name": name} if step == "dwell_time" else {"columns": options[step]}
    dataset = dataset_of("x", columns=("price",), steps=[{step: given}])
    with pytest.raises(InputError, match=rf"step {step}: .*'{name}'"):
        Plan.of(dataset, pl.Schema(columns))


@pytest.mark.parametrize("step", [{"filter_event_types": {"keep": [1]}}, {"label_sessions": {"event_types": [1]}}])
def test_a_column_that_a_step_before_took_away(step: Any) -> None:
    steps = [{"drop_columns": {"columns": ["event_type"]}}, step]
    dataset = dataset_of("x", columns=("event_type",), steps=steps)
    with pytest.raises(InputError, match=r"Unknown column 'event_type'"):
        Plan.of(dataset, pl.Schema({**COLUMNS, "event_type": pl.Int64()}))


def test_durations_are_no_features(tmp_path: Path) -> None:
    rows = [("a", "x", at(day), at(1) - at(0)) for day in range(3)]
    write(tmp_path, rows, ("user_id", "item_id", "timestamp", "took"))
    dataset = dataset_of(tmp_path, columns=("took",), features={"took": "category"})
    with pytest.raises(InputError, match=r"feature took: column 'took' holds Duration.*as a number, such as seconds"):
        run(tmp_path, dataset)
