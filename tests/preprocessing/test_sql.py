"""SQL expressions of one row are read; what looks at other rows, or could end the run, is refused."""

from __future__ import annotations

import polars as pl
import pytest

from preprocessing.sql import check_columns, read_sql
from schemas.errors import InputError

ROWS = pl.DataFrame({"price": [1.5, -2.0, None], "kind": ["shoe", " Hat", None]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price * 2", [3.0, -4.0, None]),
        ("price > 0 OR kind = 'shoe'", [True, False, None]),
        ("COALESCE(ABS(price), 0)", [1.5, 2.0, 0.0]),
        ("CASE WHEN price > 0 THEN 1 ELSE 0 END", [1, 0, 0]),
        ("NOT (price IS NULL)", [True, True, False]),
        ("LOWER(TRIM(kind))", ["shoe", "hat", None]),
        ("kind LIKE '%h%' AND kind IN ('shoe')", [True, False, None]),
        ("TRY_CAST(kind AS INT)", [None, None, None]),
        ("ROUND(GREATEST(price, 0), 0)", [2.0, 0.0, 0.0]),
    ],
)
def test_expressions_of_one_row_are_read(text: str, expected: list[object]) -> None:
    assert ROWS.select(read_sql(text).alias("value"))["value"].to_list() == expected


def test_user_is_a_column() -> None:
    rows = pl.DataFrame({"user": [None, "m"], "pseudo": ["p", "q"]})
    text = """coalesce(user, "user", 'the user: ' || pseudo)"""
    assert rows.select(read_sql(text).alias("value"))["value"].to_list() == ["the user: p", "m"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price >", "no SQL expression"),
        ("price; DROP TABLE events", "no SQL expression"),
        ("price > (SELECT 1 FROM events)", "no SQL expression"),
        ("price > AVG(price) + 1", "holds an aggregate"),
        ("SUM(price) OVER (PARTITION BY kind)", "holds a window"),
        ("LAG(price) OVER (ORDER BY kind)", "holds a window"),
        ("COUNT(*)", "holds Len"),
        ("UNNEST(price)", "holds Explode"),
        ("COLUMNS('price')", "holds Selector"),
        ("QUANTILE_CONT(price, 0.5)", "holds Quantile"),
        ("CAST(kind AS INT) > 1", "TRY_CAST"),
    ],
)
def test_others_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sql(text)


def test_columns_must_be_there() -> None:
    with pytest.raises(InputError, match="Did you mean 'price'"):
        check_columns(read_sql("prise + 1"), ROWS.columns)
