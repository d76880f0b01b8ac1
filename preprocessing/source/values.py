"""Turn what files hold into the type a column has. What does not fit becomes null; the caller keeps the original.

Types do not depend on how wide a file stores a number: integers become Int64, floats Float64, text String, times
Datetime("us", "UTC"). Nothing is rounded or cut on the way:

    3.0 -> 3 and 3.5 -> null for an integer;  007 -> "007" and 7.0 -> "7" for text;  2**53 + 1.0 -> null for both
    "12.50" -> 12.5 and "free" -> null for a float;  "yes" -> null and "True" -> true for a boolean
"""

from __future__ import annotations

import polars as pl

from preprocessing.source.times import TIME as TIME
from preprocessing.source.times import TimeForms, hold_time, to_date, to_time
from schemas.column_types import TypeName
from schemas.errors import InputError

TYPES: dict[TypeName, pl.DataType] = {
    "integer": pl.Int64(),
    "float": pl.Float64(),
    "text": pl.String(),
    "boolean": pl.Boolean(),
    "time": TIME,
    "date": pl.Date(),
}
INT64_HOLDS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
EXACT = 2**53  # a float of this size or more may stand for several integers
EXACT_FLOAT32, EXACT_FLOAT16 = 2**24, 2**11
# Numbers with a decimal comma; points stand between groups of three digits.
GROUPED = r"^\s*[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?\s*$"
COMMA = r"^\s*[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?\s*$"
DIGITS = r"^(?:0|-?[1-9][0-9]*)$"  # the only text that an integer id has
TEXTS = (pl.String, pl.Binary, pl.Categorical, pl.Enum)


def as_plain(value: pl.Expr, stored: pl.DataType) -> tuple[pl.Expr, pl.DataType]:
    """The column and its type without what only storage knows: binary and dictionary text is text."""
    if stored == pl.Binary:
        return value.map_batches(_utf8, return_dtype=pl.String, is_elementwise=True), pl.String()
    if isinstance(stored, pl.Categorical | pl.Enum):
        return value.cast(pl.String), pl.String()
    return value, stored


def may_fail(stored: pl.DataType, wanted: pl.DataType, zone: str) -> bool:
    """Whether some values of the type stored have no counterpart in the type wanted."""
    if stored == pl.Null or stored == wanted:
        return False
    if isinstance(stored, pl.Datetime | pl.Date):  # a naive time that clocks skip
        return wanted == TIME and zone != "UTC" and getattr(stored, "time_zone", None) is None
    if stored.is_nested():
        return False
    if wanted == pl.String and (stored == pl.Boolean or isinstance(stored, pl.Categorical | pl.Enum)):
        return False
    if stored == pl.Boolean and wanted in (pl.Int64, pl.Float64):
        return False
    if wanted == pl.Int64:
        return stored not in INT64_HOLDS
    if wanted == pl.Float64:
        return not stored.is_numeric() or _may_be_long(stored)
    return not (wanted == pl.String and (stored.is_integer() or stored.is_decimal()))


def convert(value: pl.Expr, stored: pl.DataType, wanted: pl.DataType, forms: TimeForms) -> pl.Expr:
    """The column of the type `stored` as the type `wanted`; null where a value does not fit.

    Raises:
        InputError: for types of which no value ever fits.
    """
    value, stored = as_plain(value, stored)
    if stored == pl.Null:
        return value.cast(wanted)
    if stored == wanted and not isinstance(stored, pl.Datetime | pl.Date):
        return value
    if not _goes(stored, wanted):
        raise InputError(f"holds {stored}, of which no value is {name_of(wanted)}")
    if wanted == TIME:
        return to_time(value, stored, forms)
    if wanted == pl.Date:
        return to_date(value, stored, forms)
    if wanted == pl.Int64:
        return _to_integer(value, stored)
    if wanted == pl.Float64:
        return _to_float(value, stored)
    if wanted == pl.Boolean:
        return _to_boolean(value, stored)
    return _to_text(value, stored) if wanted == pl.String else value.cast(wanted)


def exact_digits(text: pl.Expr) -> pl.Expr:
    """Text that is how an integer is written, and null for other spellings of one: 7 and -7, but not 007, 7.0 or 7e0."""
    return pl.when(text.str.contains(DIGITS)).then(text)


def with_point(text: pl.Expr, *, strict: bool = False) -> pl.Expr:
    """Numbers with a decimal comma as they are with a point; other text as it is.

    `strict`: text with a point that is no such number is null, as 1.25 would else be the same as 1,25.
    """
    number = text.str.contains(GROUPED) | text.str.contains(COMMA)
    point = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    other = pl.when(~text.str.contains(".", literal=True)).then(text) if strict else text
    return pl.when(number).then(point).otherwise(other)


def raw_value(value: pl.Expr, stored: pl.DataType) -> pl.Expr:
    """What was found, for those who ask why it was not read: text, numbers or times. Empty text and NaN are no value."""
    if isinstance(stored, pl.Datetime | pl.Date):
        return hold_time(value, stored)
    if stored == pl.Binary:
        readable, _ = as_plain(value, stored)
        value, stored = pl.coalesce(readable, pl.lit("0x") + value.bin.encode("hex")), pl.String()
    value, stored = as_plain(value, stored)
    if stored == pl.String:
        return pl.when(value.str.strip_chars() != "").then(value)
    return value.fill_nan(None) if stored.is_float() else value


def local_day(moment: pl.Expr, time_zone: str) -> pl.Expr:
    """The day of a moment in a time zone."""
    return (moment if time_zone == "UTC" else moment.dt.convert_time_zone(time_zone)).dt.date()


def widest(stored: pl.DataType) -> pl.DataType:
    """The type in which values as they were found are kept."""
    if stored in INT64_HOLDS:
        return pl.Int64()
    if isinstance(stored, pl.Datetime):
        return pl.Datetime("us", stored.time_zone)
    if isinstance(stored, TEXTS):
        return pl.String()
    return pl.Float64() if stored.is_float() else stored


def alike(values: pl.Series, wanted: pl.DataType) -> pl.Series:
    """Values of the YAML as a column has them: `keep: ["0", "1"]` and `keep: [0, 1]` of integers are 0 and 1.

    Raises:
        InputError: naming a value that the column cannot hold.
    """
    given = values.to_frame("value")
    same = given.select(convert(pl.col("value"), values.dtype, wanted, TimeForms()))["value"]
    odd = given.filter(same.is_null() & values.is_not_null())["value"]
    if len(odd):
        raise InputError(f"{odd[0]!r} is not {name_of(wanted)}, which the column holds")
    return same


def plain_name(dtype: pl.DataType) -> str:
    """How a type is called in YAML."""
    return next((name for name, known in TYPES.items() if known == dtype), str(dtype))


def name_of(dtype: pl.DataType) -> str:
    """The same with an article."""
    return {"integer": "an integer", "text": "text"}.get(name := plain_name(dtype), f"a {name}")


def _goes(stored: pl.DataType, wanted: pl.DataType) -> bool:
    simple = stored.is_numeric() or stored in (pl.Boolean, pl.String)
    times = isinstance(stored, pl.Datetime | pl.Date)
    if wanted in (pl.Int64, pl.Float64, pl.Boolean):
        return simple
    if wanted == pl.String:
        return simple or times
    if wanted in (TIME, pl.Date):
        return times or (simple and stored != pl.Boolean)
    return isinstance(stored, pl.List) and isinstance(wanted, pl.List)


def _to_integer(value: pl.Expr, stored: pl.DataType) -> pl.Expr:
    if stored.is_float():
        return _whole(value.cast(pl.Float64), _exact(stored))
    if isinstance(stored, pl.Decimal) and stored.scale:
        whole = value.cast(pl.Int64, strict=False)
        return pl.when(whole.cast(stored, strict=False) == value).then(whole)
    if stored == pl.String:
        text = value.str.strip_chars()
        return pl.coalesce(text.cast(pl.Int64, strict=False), _whole(text.cast(pl.Float64, strict=False)))
    return value.cast(pl.Int64, strict=False)


def _to_float(value: pl.Expr, stored: pl.DataType) -> pl.Expr:
    if stored == pl.String:
        return value.str.strip_chars().cast(pl.Float64, strict=False)
    number = value.cast(pl.Float64, strict=False)
    return pl.when(number.cast(stored, strict=False) == value).then(number) if _may_be_long(stored) else number


def _may_be_long(stored: pl.DataType) -> bool:
    """Whether a type holds integers that no float stands for exactly."""
    if isinstance(stored, pl.Decimal):
        return not stored.scale and (stored.precision or 38) > 15
    return stored.is_integer() and stored not in (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)


def _exact(stored: pl.DataType) -> int:
    """From which size on floats of a type may stand for several integers."""
    return EXACT_FLOAT32 if stored == pl.Float32 else EXACT_FLOAT16 if stored == pl.Float16 else EXACT


def _whole(value: pl.Expr, exact: int = EXACT) -> pl.Expr:
    inside = (value.abs() < exact) & (value == value.floor())
    return pl.when(inside).then(value).cast(pl.Int64, strict=False)


def _to_text(value: pl.Expr, stored: pl.DataType) -> pl.Expr:
    """The shortest text of a value: a number that is whole has that of an integer, however it is stored."""
    if stored.is_float():
        value = value.cast(pl.Float64)
        broken = pl.when((value.abs() < EXACT) & (value != value.floor())).then(value)
        return pl.coalesce(_whole(value, _exact(stored)).cast(pl.String), broken.cast(pl.String))
    if isinstance(stored, pl.Decimal) and stored.scale:
        return value.cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")
    return value.cast(pl.String)


def _to_boolean(value: pl.Expr, stored: pl.DataType) -> pl.Expr:
    if stored == pl.String:
        text = value.str.strip_chars().str.to_lowercase()
        return pl.when(text.is_in(["true", "1"])).then(True).when(text.is_in(["false", "0"])).then(False)
    number = value.cast(pl.Float64)
    return pl.when(number == 1).then(True).when(number == 0).then(False)


def _utf8(values: pl.Series) -> pl.Series:
    """Bytes as text; null where they are none."""
    try:
        return values.cast(pl.String)
    except pl.exceptions.PolarsError:
        return pl.Series(values.name, [_text(value) for value in values.to_list()], pl.String)


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
