"""SQL expressions of one row are read; what looks at other rows, or could end the run, is refused."""

from __future__ import annotations

import re
import warnings
from datetime import date, datetime

import polars as pl
import pytest

from preprocessing.sql import check_columns, columns_in, read_sql, type_on
from schemas.errors import InputError

ROWS = pl.DataFrame({"price": [1.5, -2.0, None], "kind": ["shoe", " Hat", None], "n": [3, -2, None]})
# The first and last of each type, what no cast reads, what no pattern means.
ODD = pl.DataFrame(
    {
        "i": [None, 0, 1, -1, 7, 2**62, -(2**63)],
        "j": [-(2**63), 7, 0, None, -1, 1, 2**62],
        "f": [None, 0.0, -0.0, -2.5, float("nan"), float("inf"), -float("inf")],
        "s": [None, "", "a", "é日", "(", "1e400", "2020-13-45"],
        "r": ["(", None, "é", "%", "\\", "", "**"],
        "t": [None, datetime(1, 1, 1), datetime(9999, 12, 31), datetime(2020, 2, 29), datetime(1970, 1, 1), None, None],
        "d": [None, date(1, 1, 1), date(9999, 12, 31), date(2020, 2, 29), date(1970, 1, 1), None, None],
        "b": [True, False, None, True, False, None, True],
    }
)


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
        ("n // 2", [1, -1, None]),
        ("n % 2 = 1", [True, False, None]),
        ("POW(n, 2)", [9, 4, None]),
        ("kind ~ '^s'", [True, False, None]),
        ("kind NOT LIKE 's%'", [False, True, None]),
        ("n NOT BETWEEN 1 AND 5", [False, True, None]),
        ("price IS DISTINCT FROM 1.5", [False, True, True]),
        ("DATE '2020-01-02' < TRY_CAST(kind AS DATE)", [None, None, None]),
        ("CAST(n AS BOOLEAN)", [True, True, None]),
        ("substr(kind, 2, 2) || '!'", ["ho!", "Ha!", None]),
        ('"price" > 0 -- as bought', [True, False, None]),
        ("STARTS_WITH(kind, kind)", [True, True, None]),
    ],
)
def test_expressions_of_one_row_are_read(text: str, expected: list[object]) -> None:
    assert ROWS.select(read_sql(text).alias("value"))["value"].to_list() == expected


def test_user_is_a_column() -> None:
    rows = pl.DataFrame({"user": [None, "m"], "pseudo": ["p", "q"]})
    text = """coalesce(user, "user", 'the user: ' || pseudo)"""
    assert rows.select(read_sql(text).alias("value"))["value"].to_list() == ["the user: p", "m"]


@pytest.mark.parametrize(
    "name",
    re.split(
        r"\s+",
        """user User order group end
    limit from where having date time timestamp year day first last rank count index value type key
    session all any asc desc by as on in_ set table column begin default over partition rows range interval current_user_
    é日 _x x1 a$b session_user_id offset union join left right replace if_ true_ null_ not_ is_ like_ natural window values""",
    ),
)
def test_a_name_is_a_column_or_refused(name: str) -> None:
    """Whatever it means to SQL elsewhere; never another value."""
    rows = pl.DataFrame({name: [1, 2]})
    assert rows.select(read_sql(f'"{name}" + 1').alias("value"))["value"].to_list() == [2, 3]
    try:
        expression = read_sql(f"1 + {name} * 2 - {name}")
    except InputError:
        assert name in {"any", "from", "where", "having", "as", "on", "by", "over", "union", "join", "interval"}
    else:
        assert rows.select(expression.alias("value"))["value"].to_list() == [2, 3]
        assert columns_in(f"1 + {name} * 2 - {name}") == (name,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price >", "no SQL expression"),
        ("", "it is empty"),
        ("-- nothing", "it is empty"),
        ("price; DROP TABLE events", "no SQL expression.*a semicolon"),
        ("kind = 'it", "no SQL expression"),
        ("(" * 3000 + "price" + ")" * 3000, "no SQL expression"),
        ("price > (SELECT 1 FROM events)", "a subquery"),
        ("n IN (SELECT 1)", "a subquery"),
        ("EXISTS (SELECT 1)", "a subquery"),
        ("price > AVG(price) + 1", r"an aggregate \(AVG\)"),
        ("1 + max(n)", r"an aggregate \(MAX\)"),
        ("COUNT(*)", r"an aggregate \(COUNT\)"),
        ("COUNT(DISTINCT kind)", r"an aggregate \(COUNT\)"),
        ("FIRST(price)", r"an aggregate \(FIRST\)"),
        ("SUM(price) OVER (PARTITION BY kind)", "a window"),
        ("LAG(price) OVER (ORDER BY kind)", "a window"),
        ("ROW_NUMBER()", "the function ROW_NUMBER"),
        ("UNNEST(price)", "the function UNNEST"),
        ("COLUMNS('price')", "the function COLUMNS"),
        ("QUANTILE_CONT(price, 0.5)", "an aggregate"),
        ("RANDOM() < 0.5", "the function RANDOM"),
        ("LOWR(kind)", r"the function LOWR \(did you mean LOWER\?\)"),
        ("price AS dear", "holds AS"),
        ("*", r"holds \*"),
        ("events.price > 1", "events.price .a column has one name"),
        ("CAST(kind AS INT) > 1", "TRY_CAST"),
        ("kind::int > 1", "TRY_CAST"),
        ("CAST(price AS VARCHAR)", "TRY_CAST"),
        ("CASE WHEN n > 0 THEN CAST(kind AS DATE) END", "TRY_CAST"),
        ("DATE(kind) > DATE '2020-01-01'", r"DATE \(take TRY_CAST"),
        ("STRPTIME(kind, '%Y')", r"STRPTIME \(take TRY_CAST"),
        ("TIMESTAMP(kind)", r"TIMESTAMP \(take TRY_CAST"),
        ("POW(2, n)", "POW with n, which has to be a constant"),
        ("REGEXP_LIKE(kind, kind)", "REGEXP_LIKE with kind, which has to be a constant"),
        ("LPAD(kind, n, 'x')", "LPAD with n, which has to be a constant"),
        ("SUBSTR(kind, 1, n + 1)", r"SUBSTR with n \+ 1, which has to be a constant"),
        ("STRPOS(kind, kind)", "STRPOS with kind, which has to be a constant"),
        ("LEN(kind) > 3", "no SQL expression.*unsupported function 'len'"),
    ],
)
def test_others_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sql(text)


@pytest.mark.parametrize(
    "text",
    """
    i + j | i * j | i - j | -i | i / j | i / 0 | i // j | i // 0 | i % j | i % 0 | i & j | f // f | f % i | i + f
    ABS(i) | CEIL(f) | FLOOR(f) | EXP(i) | LN(i) | LN(f) | LOG(i, j) | LOG10(f) | SQRT(f) | SQRT(i) | CBRT(f) | SIGN(f)
    ROUND(f, 1) | POW(i, 2) | POW(f, -1) | POW(i, 0.5) | ATAN2(f, i) | COT(f) | ACOS(i) | GREATEST(i, j, f) | LEAST(s, r)
    LENGTH(s) | OCTET_LENGTH(s) | BIT_LENGTH(s) | LEFT(s, i) | RIGHT(s, j) | SUBSTR(s, i) | SUBSTR(s, i, 2) | REVERSE(s)
    REPLACE(s, '(', 'b') | INITCAP(s) | CONCAT(s, i) | CONCAT_WS('-', s, r) | s || r | STARTS_WITH(s, r) | ENDS_WITH(s, r)
    SPLIT_PART(s, r, i) | SPLIT_PART(s, 'a', -9) | REGEXP_LIKE(s, '^a') | s LIKE '(%' | s ILIKE 'A' | LPAD(s, 3, 'x')
    RPAD(s, 0, 'x') | TRIM(s) | LTRIM(s, 'a') | UPPER(s) | STRPOS(s, 'a') | EXTRACT(year FROM t) | EXTRACT(epoch FROM t)
    EXTRACT(dow FROM d) | DATE_PART('month', d) | STRFTIME(t, '%Y-%m') | TRY_CAST(s AS INT) | TRY_CAST(s AS DATE)
    TRY_CAST(s AS TIMESTAMP) | TRY_CAST(f AS INT) | TRY_CAST(f AS TINYINT) | TRY_CAST(s AS DOUBLE) | TRY_CAST(t AS DATE)
    TRY_CAST(i AS DECIMAL(5, 2)) | TRY_CAST(s AS TIME) | CAST(f AS BOOLEAN) | COALESCE(i, j) | NULLIF(s, r) | IFNULL(f, 0)
    IF(b, i, j) | CASE i WHEN 1 THEN s END | i IN (1, NULL) | i BETWEEN j AND 3 | i IS DISTINCT FROM j | t - INTERVAL '1 month'
    """.replace("\n", "|").split("|"),
    ids=str.strip,
)
def test_no_value_ends_the_run(text: str) -> None:
    if text.strip():
        expression = read_sql(text.strip())
        with warnings.catch_warnings(action="ignore"):
            assert type_on(expression, ODD.schema) == ODD.select(expression.alias("value")).schema["value"]


@pytest.mark.parametrize(
    "text", ["STRFTIME(t, '%Q')", "STRFTIME(d, '%H')", "NOT s", "TRY_CAST(s AS BOOLEAN)", "REGEXP_LIKE(s, '(')"]
)
def test_what_fails_on_values_fails_before_the_run(text: str) -> None:
    with pytest.raises(pl.exceptions.PolarsError):
        type_on(read_sql(text), ODD.schema)


def test_types_are_found_for_every_kind_of_column() -> None:
    schema = {
        "l": pl.List(pl.Int8),
        "e": pl.Enum(["x"]),
        "c": pl.Categorical(),
        "z": pl.Datetime("ns", "Europe/Berlin"),
    }
    schema |= {"m": pl.Decimal(9, 2), "o": pl.Boolean(), "u": pl.Duration("ms"), "k": pl.Binary(), "x": pl.Null()}
    for name, dtype in schema.items():
        assert type_on(read_sql(name), schema) == dtype
    assert type_on(read_sql("o AND m > 1"), schema) == pl.Boolean


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("price > 0 OR kind = 'n' AND price < 9", ("price", "kind")),
        ("CASE WHEN n > 0 THEN price ELSE LENGTH(kind) END", ("n", "price", "kind")),
        ("kind BETWEEN 'a' AND 'b' OR Price > price", ("kind", "Price", "price")),
        ("POSITION('s' IN kind) + n", ("kind", "n")),
        ('"a ""b"" c" + "日"', ('a "b" c', "日")),
        ("n + date + value + timestamp", ("n", "date", "value", "timestamp")),
        ("EXTRACT(year FROM timestamp)", ("timestamp",)),
        ("1 + 1", ()),
        ("n" + " + n" * 2000, ("n",)),
    ],
)
def test_columns_are_named_once_as_they_are_first_written(text: str, columns: tuple[str, ...]) -> None:
    assert columns_in(text) == columns
    assert set(read_sql(text).meta.root_names()) == set(columns)


def test_columns_are_those_of_an_expression_that_is_allowed() -> None:
    with pytest.raises(InputError, match="an aggregate"):
        columns_in("SUM(price)")


def test_columns_must_be_there() -> None:
    with pytest.raises(InputError, match="Did you mean 'price'"):
        check_columns(read_sql("prise + 1"), ROWS.columns)
