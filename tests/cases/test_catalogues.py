"""Item tables that hold something else on a later night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from schemas.artifacts import Manifest
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, run, sessions_of, three_days, write

FEATURES = {"brand": {"encode": "category"}, "price": {"encode": ["log1p", "standardize"]}}


def night(folder: Path, day: int, columns: dict[str, Any]) -> Manifest:
    """Sessions up to that day, with this item table."""
    pl.DataFrame({"item_id": ["x", "y", "z"], **columns}).write_parquet(folder / "items.parquet")
    items = {"path": "items.parquet", "columns": {name: name for name in ("item_id", "brand", "price")}}
    steps = [{"join_items": {"columns": ["brand", "price"]}}]
    return run(folder, dataset_of(folder, items=items, steps=steps, features=FEATURES), now=at(day + 1))


@pytest.mark.parametrize("brands", [["A", "B", "A"], [7, 8, 7]])
def test_a_column_that_is_all_null_one_night_is_null(tmp_path: Path, brands: list[Any]) -> None:
    """It is stored without a type: no value of the nights before can be one of its own."""
    write(tmp_path, three_days())
    night(tmp_path, 1, {"brand": brands, "price": [1.0, 2.0, 3.0]})
    emptied = night(tmp_path, 2, {"brand": [None] * 3, "price": [1.0, 2.0, 3.0]})
    by_day = sessions_of(emptied).group_by("day").agg(pl.col("brand").explode().unique().sort())
    assert dict(by_day.sort("day").rows()) == {"2024-01-01": [3, 4], "2024-01-02": [3, 4], "2024-01-03": [1]}
    values = pl.read_parquet(emptied.folder / "vocabularies" / "brand.parquet")["value"]
    assert values.to_list() == brands[:2]


@pytest.mark.parametrize(("before", "now"), [(["A", "B", "A"], [7, 8, 7]), ([7, 8, 7], ["A", "B", "A"])])
def test_a_column_that_is_text_no_longer_is_refused_by_name(tmp_path: Path, before: list[Any], now: list[Any]) -> None:
    """Ids would go to other values; nothing of the night before is touched."""
    write(tmp_path, three_days())
    first = night(tmp_path, 1, {"brand": before, "price": [1.0, 2.0, 3.0]})
    with pytest.raises(InputError, match=r"Feature 'brand': its column held \w+ on finished days and holds \w+ now"):
        night(tmp_path, 2, {"brand": now, "price": [1.0, 2.0, 3.0]})
    assert night(tmp_path, 1, {"brand": before, "price": [1.0, 2.0, 3.0]}).id == first.id
