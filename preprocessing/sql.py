"""Read plain SQL expressions such as `price * quantity` or `price > 0 OR event_type <> 'purchase'`: one row in, one value out.

sqlglot parses, and what looks at other rows (SUM, OVER, SELECT) or would end the run at the first odd value is refused;
Polars runs the rest. Every engine does, but for LIKE, which a GPU does not take: STARTS_WITH, ENDS_WITH and REGEXP_LIKE
say the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping

import polars as pl
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from schemas.errors import InputError, unknown

DIALECT = "duckdb"  # the nearest to Polars: TRY_CAST, `::`, `//` and `~`
SYNTAX = (
    *(exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Paren),
    *(exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.Neg, exp.BitwiseAnd, exp.BitwiseOr, exp.DPipe),
    *(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Is),
    *(exp.And, exp.Or, exp.Not, exp.Between, exp.In, exp.Tuple, exp.Like, exp.ILike, exp.Case, exp.If),
    *(exp.TryCast, exp.DataType, exp.DataTypeParam, exp.Interval, exp.Var, exp.Extract),
)
FUNCTIONS = (
    *(exp.Abs, exp.Cbrt, exp.Ceil, exp.Exp, exp.Floor, exp.Ln, exp.Log, exp.Pow, exp.Round, exp.Sign, exp.Sqrt),
    *(exp.Acos, exp.Asin, exp.Atan, exp.Atan2, exp.Cos, exp.Cot, exp.Sin, exp.Tan),
    *(exp.Coalesce, exp.Greatest, exp.Least, exp.Nullif),
    *(exp.BitLength, exp.Concat, exp.ConcatWs, exp.EndsWith, exp.Initcap, exp.Left, exp.Length, exp.Lower, exp.Pad),
    *(exp.RegexpLike, exp.Replace, exp.Reverse, exp.Right, exp.SplitPart, exp.StartsWith, exp.StrPosition),
    *(exp.Substring, exp.TimeToStr, exp.Trim, exp.Upper),
)
NAMED = ("DATE_PART", "OCTET_LENGTH")  # functions of Polars that sqlglot keeps by their names
# Arguments whose odd values (a negative length, a pattern that is none) end the run; a constant's show before it begins.
CONSTANT: dict[type[exp.Expr], tuple[str, ...]] = {
    exp.Pad: ("expression", "fill_pattern"),
    exp.Pow: ("expression",),
    exp.RegexpLike: ("expression",),
    exp.Replace: ("expression", "replacement"),
    exp.StrPosition: ("substr",),
    exp.Substring: ("length",),
}
READ_TIMES = (exp.Date, exp.Datetime, exp.StrToTime, exp.Time, exp.Timestamp, exp.TsOrDsToDate, exp.TsOrDsToTimestamp)


def read_sql(text: str) -> pl.Expr:
    """The expression that a text means.

    Raises:
        InputError: for what is no SQL expression, looks at other rows, or could end the run at some value.
    """
    tree = _parsed(text)
    refused = list(dict.fromkeys(_refused(text, tree)))
    if refused:
        raise InputError(
            f"{text!r} holds {', '.join(refused)}; an expression takes one row's columns with + - * / %, comparisons, "
            "AND OR NOT, IN, LIKE, BETWEEN, CASE, TRY_CAST, COALESCE, and functions of numbers, text and times."
        )
    try:
        expression = pl.sql_expr(_quoted(text, tree))
    except pl.exceptions.PolarsError as error:
        raise _no_expression(text, str(error)) from None
    if set(expression.meta.root_names()) != set(_columns(tree)):
        raise InputError(f"{text!r} is ambiguous: write each column's name in double quotes.")
    return expression


def columns_in(text: str) -> tuple[str, ...]:
    """Names of the columns that an expression reads, each once, in the order in which they are first written.

    Example: `price > 0 OR kind = 'x' AND price < 9` -> ("price", "kind").

    Raises:
        InputError: as `read_sql`.
    """
    read_sql(text)
    return _columns(_parsed(text))


def check_columns(expression: pl.Expr, columns: Iterable[str]) -> None:
    """Raise InputError for a column that is not there."""
    there = set(columns)
    for name in expression.meta.root_names():
        if name not in there:
            raise unknown("column", name, there)


def type_on(expression: pl.Expr, schema: Mapping[str, pl.DataType]) -> pl.DataType:
    """The type of an expression's values, found on a row of nulls and a row of zeros and empty texts.

    A plan alone does not tell every misfit, nor do nulls: a wrong time format shows on the first time only.

    Raises:
        PolarsError: when it does not fit the types of its columns.
    """
    rows = pl.DataFrame([_null_and_zero(name, dtype) for name, dtype in schema.items()])
    return rows.select(expression).dtypes[0]


def _parsed(text: str) -> exp.Expr:
    try:
        trees = sqlglot.parse(text, read=DIALECT)
    except (SqlglotError, RecursionError) as error:
        raise _no_expression(text, str(error)) from None
    if len(trees) != 1 or trees[0] is None:
        raise _no_expression(text, "it is empty" if trees in ([], [None]) else "a semicolon begins another statement")
    return trees[0]


def _refused(text: str, tree: exp.Expr) -> Iterator[str]:
    """What in a tree does not look at one row only, or could end the run; nothing below such a part is looked at."""
    for node in tree.walk(prune=lambda part: _fault(text, part) is not None):
        if fault := _fault(text, node):
            yield fault


def _fault(text: str, node: exp.Expr) -> str | None:
    """Why a part of the text, without what is below it, is refused."""
    kind = type(node)
    if isinstance(node, exp.Column) and len(node.parts) > 1:
        return f"{node.sql(DIALECT)} (a column has one name, without a table's)"
    if kind is exp.Cast:
        return None if _is_safe(node) else "CAST (take TRY_CAST: what cannot be cast becomes null)"
    if kind not in SYNTAX and kind not in FUNCTIONS and not (kind is exp.Anonymous and node.name.upper() in NAMED):
        return _called(text, node)
    for argument in CONSTANT.get(kind, ()):
        if (value := node.args.get(argument)) is not None and value.find(exp.Column):
            return f"{_written(text, node)} with {value.sql(DIALECT)}, which has to be a constant"
    return None


def _is_safe(cast: exp.Expr) -> bool:
    """Casts of constants are tried before the run; any number is true or false."""
    return not cast.find(exp.Column) or bool(cast.args["to"].is_type("boolean"))


def _called(text: str, node: exp.Expr) -> str:
    """A part that is refused, as whoever wrote it would call it."""
    name = _written(text, node)
    if isinstance(node, exp.Query | exp.Exists):
        return "a subquery (SELECT)"
    if isinstance(node, exp.Window):
        return "a window (OVER)"
    if isinstance(node, exp.AggFunc):
        return f"an aggregate ({name})"
    if isinstance(node, READ_TIMES):
        return f"{name} (take TRY_CAST: what cannot be read as a time becomes null)"
    if isinstance(node, exp.Func):
        known = {*NAMED, *(name for function in FUNCTIONS for name in function.sql_names())}
        near = difflib.get_close_matches(name, sorted(known), n=1)
        return f"the function {name}" + (f" (did you mean {near[0]}?)" if near else "")
    names: dict[type[exp.Expr], str] = {exp.Alias: "AS", exp.Star: "*"}
    return names.get(type(node), node.key.upper())


def _written(text: str, node: exp.Expr) -> str:
    """A function's name as it is written; sqlglot calls STRPTIME and RANDOM otherwise."""
    if "start" in node.meta:
        return text[node.meta["start"] : node.meta["end"] + 1].upper()
    return node.sql_name() if isinstance(node, exp.Func) else ""


def _quoted(text: str, tree: exp.Expr) -> str:
    """The text with every column's name in double quotes: `user`, `order` and `end` alone mean something else to Polars."""
    names = [column.this for column in tree.find_all(exp.Column) if not column.this.quoted]
    for name in sorted(names, key=lambda name: int(name.meta["start"]), reverse=True):
        text = f'{text[: name.meta["start"]]}"{name.name}"{text[name.meta["end"] + 1 :]}'
    return text


def _columns(tree: exp.Expr) -> tuple[str, ...]:
    columns = sorted(tree.find_all(exp.Column), key=lambda column: int(column.this.meta.get("start", 0)))
    return tuple(dict.fromkeys(column.name for column in columns))


def _null_and_zero(name: str, dtype: pl.DataType) -> pl.Series:
    zero = 0 if dtype.is_numeric() or dtype.is_temporal() or dtype == pl.Boolean else ""
    rows = pl.Series(name, [None, zero])
    if isinstance(zero, int) or dtype in (pl.String, pl.Categorical):
        return rows.cast(dtype, strict=False)
    return pl.Series(name, [None, None], dtype)


def _no_expression(text: str, why: str) -> InputError:
    return InputError(
        f"{text!r} is no SQL expression of columns ({why.partition(chr(10))[0]}). "
        "A column named like a word of SQL is written in double quotes, a text in single ones."
    )
