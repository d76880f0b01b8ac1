"""Read plain SQL expressions such as `price * quantity` or `price > 0 OR event_type <> 'purchase'`: one row in, one value out.

What looks at other rows (SUM, OVER, SELECT) is refused, and so are casts that would end the run at the first odd value.
All of it runs on every engine, but for LIKE, which a GPU does not take: STARTS_WITH, ENDS_WITH and REGEXP_LIKE do the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from schemas.errors import InputError, unknown

PARTS: dict[
    str, tuple[int | str, ...]
] = {  # kinds of expression that look at one row, and where in them other expressions are
    "Alias": (0,),
    "BinaryExpr": ("left", "right"),
    "Cast": ("expr",),
    "Column": (),
    "Function": ("input",),
    "Literal": (),
    "Ternary": ("predicate", "truthy", "falsy"),
}
BARE_USER = re.compile(r"""('(?:[^']|'')*'|"[^"]*")|\b(user)\b""", re.IGNORECASE)  # a column, to SQL a function
NAMES: dict[str, str] = {"Agg": "an aggregate", "Over": "a window (OVER)"}
FUNCTIONS = {
    *("Abs", "Ceil", "Coalesce", "Exp", "FillNull", "Floor", "Log", "MaxHorizontal", "MinHorizontal", "Pow", "Round"),
    *("Sign", "StringExpr", "TemporalExpr", "Trigonometry"),
    *("IsFinite", "IsIn", "IsNan", "IsNotNull", "IsNull", "Not"),
}


def read_sql(text: str) -> pl.Expr:
    """The expression that a text means.

    Raises:
        InputError: for what is no SQL expression, or is not of one row.
    """
    try:
        expression = pl.sql_expr(BARE_USER.sub(lambda match: match[1] or f'"{match[2]}"', text))
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{text!r} is no SQL expression of columns ({_first_line(error)}).") from None
    refused = sorted(set(_refused(json.loads(expression.meta.serialize(format="json")))))
    if refused:
        raise InputError(
            f"{text!r} holds {', '.join(refused)}; an expression takes one row's columns with + - * / %, comparisons, "
            "AND OR NOT, IN, LIKE, BETWEEN, CASE, COALESCE, and functions of numbers, text and times."
        )
    return expression


def check_columns(expression: pl.Expr, columns: Iterable[str]) -> None:
    """Raise InputError for a column that is not there."""
    there = set(columns)
    for name in expression.meta.root_names():
        if name not in there:
            raise unknown("column", name, there)


def type_on(expression: pl.Expr, schema: Mapping[str, pl.DataType]) -> pl.DataType:
    """The type of an expression's values, found on one row of nulls: a plan alone does not tell every misfit.

    Raises:
        PolarsError: when it does not fit the types of its columns.
    """
    row = pl.DataFrame({name: [None] for name in schema}, schema=dict(schema))
    return row.select(expression).dtypes[0]


def _refused(node: Any) -> Iterator[str]:
    """What in a serialised expression does not look at one row only."""
    if not isinstance(node, dict):  # COUNT(*) is a bare word
        yield str(node)
        return
    ((kind, body),) = node.items()
    if kind not in PARTS:
        yield NAMES.get(kind) or kind
        return
    if kind == "Cast" and body["options"] == "Strict" and body["dtype"] != {"Literal": "Boolean"}:
        yield "CAST (take TRY_CAST: what cannot be cast becomes null)"
    if kind == "Function" and _function(body["function"]) not in FUNCTIONS:
        yield _function(body["function"])
    for part in PARTS[kind]:
        inner = body[part]
        for expression in inner if isinstance(inner, list) else [inner]:
            yield from _refused(expression)


def _function(function: Any) -> str:
    """`"Abs"`, `{"Pow": "Sqrt"}` and `{"Boolean": "IsNull"}` are Abs, Pow and IsNull."""
    if isinstance(function, str):
        return function
    ((name, variant),) = function.items()
    return _function(variant) if name == "Boolean" else str(name)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
