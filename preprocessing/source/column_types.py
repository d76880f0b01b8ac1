"""Which type a column of a table has: declared, that of earlier days, or what the files say. Nothing is guessed.

What the files say, when nothing is declared:

- Parquet: the type that is stored, however wide. Integers that Int64 may not hold, and decimals without a fraction, are
  Int64 if all values fit and text otherwise: exact in either case.
- Text files and names of folders: text; a float, a time or a date where a feature takes one (`text_types`); and for what
  expressions and plug-ins name, `inferred`: Float64 when all rows are numbers, else text. Never Int64: 10 on one night and
  12.50 on the next are the same column.
- Integers in one file and floats in another: Int64 when all floats are whole, else Float64; ids are always Int64.

    ids 7 (Int32) and 8.0 (Float64)   -> Int64          ids 7 (Int32) and "8" (String) -> refused; declare the type
    item_id in CSV: 0108775015        -> text           DECIMAL(38,0) of 16 digits     -> Int64
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import polars as pl

from preprocessing.source.files import PLAIN
from preprocessing.source.listing import SourceFile
from preprocessing.source.times import FORMS, TIME, TimeForms
from preprocessing.source.values import INT64_HOLDS, TYPES, as_plain, convert, exact_digits, with_point
from preprocessing.sql import read_sql
from schemas.column_types import IDS, ColumnType, Computed
from schemas.columns import EVENT_TYPE, POSITION, TIMESTAMP, VALID_FROM
from schemas.dataset import EventSource, FileOptions, ItemSource, UserSource
from schemas.errors import InputError

INFERRED = "inferred"
ROLES: dict[str, pl.DataType] = {TIMESTAMP: TIME, VALID_FROM: TIME, POSITION: pl.Int64()}


@dataclass(frozen=True)
class Raw:
    """How a file has a column: the type stored, and whether it is text only because the format has no types."""

    stored: pl.DataType
    untyped: bool = False


@dataclass(frozen=True)
class TableColumns:
    """What a dataset says of the columns of one table."""

    sources: dict[str, pl.Expr]
    """By our name: an expression of the file's columns."""
    forms: TimeForms
    declared: dict[str, pl.DataType] = field(default_factory=dict)
    text_types: Mapping[str, str] = field(default_factory=dict)
    options: FileOptions = PLAIN
    """How the files are read."""

    @classmethod
    def of(cls, events: EventSource, table: EventSource | ItemSource | UserSource, part: str) -> TableColumns:
        """The columns of the table `part` ("events", "items", "users"); times and ids are as those of events.

        Raises:
            InputError: for an SQL expression that cannot be read or looks at more than one row.
        """
        forms = TimeForms(events.time_unit, events.time_zone, events.time_format)
        forms.check()
        sources = {name: _source(name, column, part) for name, column in table.columns.items()}
        id_types = {"integer": pl.Int64(), "string": pl.String()}
        declared = dict.fromkeys(IDS, id_types[events.id_type]) if events.id_type in id_types else {}
        declared |= {name: _dtype(one) for name, one in events.types.items() if name in IDS}  # of all tables alike
        declared |= {name: _dtype(one) for name, one in table.types.items()}
        return cls(sources, forms, declared | ROLES, table.text_types, table.file_options)

    def roots(self, name: str) -> tuple[str, ...]:
        """The file's columns that one of ours is made of."""
        return self._roots[name]

    def is_plain(self, name: str) -> bool:
        """Whether one of ours is a column of the file rather than an expression."""
        return name in self._plain

    @cached_property
    def wanted(self) -> set[str]:
        """All of the file's columns that are needed."""
        return {root for roots in self._roots.values() for root in roots}

    @cached_property
    def as_text(self) -> set[str]:
        """The file's columns whose text is to come as it is: ids and event types are no numbers, others are `read`."""
        computed = {root for name in self.sources if not self.is_plain(name) for root in self.roots(name)}
        no_numbers = {root for name in (*IDS, EVENT_TYPE) if name in self.sources for root in self.roots(name)}
        return no_numbers | (self.wanted - computed)

    @cached_property
    def _roots(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(dict.fromkeys(source.meta.root_names())) for name, source in self.sources.items()}

    @cached_property
    def _plain(self) -> set[str]:
        return {name for name, source in self.sources.items() if source.meta.is_column()}

    def read(self, name: str, raw: Raw, wanted: pl.DataType) -> pl.Expr:
        """The column as the type wanted; null where a value does not fit. An id that is empty text is no id."""
        given, stored = as_plain(pl.col(name), raw.stored)
        if name in IDS and wanted == pl.Int64 and stored == pl.String and name not in self.declared:
            given = exact_digits(given)  # 007 and 7 are two ids, unless the dataset says that ids are integers
        elif stored == pl.String and self._has_comma(name):
            given = with_point(given, strict=wanted in (pl.Int64, pl.Float64))
        value = convert(given, stored, wanted, self.forms)
        return pl.when(value != "").then(value) if name in IDS and wanted == pl.String else value

    def _has_comma(self, name: str) -> bool:
        """Whether numbers of a column come with a decimal comma; expressions get them with a point."""
        plain = name in self._plain and name not in (*IDS, EVENT_TYPE) and self.options.decimal == ","
        return plain and self.as_text.issuperset(self.roots(name))

    def check_fits(self, name: str, raw: Raw, wanted: pl.DataType) -> None:
        """Raise InputError where no value of what is stored can be what is wanted."""
        if name in IDS:
            _check_id(name, raw.stored)
        try:
            pl.LazyFrame(schema={name: raw.stored}).select(self.read(name, raw, wanted)).collect_schema()
        except InputError as error:
            if wanted == TIME:
                raise InputError(f"{name} holds {raw.stored}; a time is one of: {FORMS}.") from None
            raise InputError(f"{name} {error}.") from None

    def choices(self, name: str, raws: Mapping[Raw, SourceFile]) -> tuple[pl.DataType, ...]:
        """The types a column that nobody has declared may have: the first that all values fit, the last unseen.

        Raises:
            InputError: when no type holds what the files have.
        """
        typed = {raw: self._natural(name, raw.stored) for raw in raws if not raw.untyped and raw.stored != pl.Null}
        if not typed:
            return self._of_text(name) if any(raw.untyped for raw in raws) else _of_nothing(name)
        kinds = {kind: raw for raw, kind in typed.items()}
        if len(kinds) == 1:
            return next(iter(kinds))
        firsts = {kind[0] for kind in kinds}
        if firsts == {pl.Int64()}:
            return max(kinds, key=len)
        if firsts == {pl.Int64(), pl.Float64()}:
            return (pl.Int64(), pl.Float64())
        if firsts == {TIME, pl.Date()}:
            return (TIME,)
        if firsts == {pl.String()}:
            return max(kinds, key=len)
        together = ({pl.Int64(), pl.Float64()}, {TIME, pl.Date()})
        (kind, raw), (other, wrong) = next(
            (one, two)
            for one, two in combinations(kinds.items(), 2)
            if one[0][0] != two[0][0] and {one[0][0], two[0][0]} not in together
        )
        raise InputError(f"{kind[0]} in {raws[raw].path}, but {other[0]} in {raws[wrong].path}")

    def _natural(self, name: str, stored: pl.DataType) -> tuple[pl.DataType, ...]:
        if name in IDS:
            _check_id(name, stored)
        fraction = stored.is_float() or (isinstance(stored, pl.Decimal) and stored.scale > 0)
        if stored in INT64_HOLDS or (name in IDS and fraction):
            return (pl.Int64(),)
        if stored.is_numeric() and not fraction:
            beyond = pl.Float64() if self.text_types.get(name) == "float" else pl.String()
            return (pl.Int64(), beyond)
        if stored.is_numeric():
            return (pl.Float64(),)
        if stored == pl.Binary:
            return (pl.String(), pl.Binary())
        if isinstance(stored, pl.Datetime):
            return (TIME,)
        if isinstance(stored, pl.List) and not stored.inner.is_nested():
            return (pl.List(self._natural("", stored.inner)[0]),)  # type: ignore[arg-type]
        return (pl.String(),) if isinstance(stored, pl.Categorical | pl.Enum) else (stored,)

    def _of_text(self, name: str) -> tuple[pl.DataType, ...]:
        kind = "text" if name in (*IDS, EVENT_TYPE) else self.text_types.get(name, "text")
        return (pl.Float64(), pl.String()) if kind == INFERRED else (TYPES[kind],)  # type: ignore[index]


def undecodable(name: str, place: str) -> InputError:
    """Bytes that are no text."""
    return InputError(
        f"{place}: column {name!r} holds bytes that are not UTF-8 text, such as those of a UUID; write them as text, or leave "
        "the column out"
    )


def mends(name: str) -> str:
    """The line of YAML that says what the type of a column is."""
    return f"declare it, as in `types: {{{name}: text}}`, or convert the file."


def _source(name: str, column: str | Computed, part: str) -> pl.Expr:
    if isinstance(column, str):
        return pl.col(column)
    try:
        expression = read_sql(column.sql)
    except InputError as error:
        raise InputError(f"{part}.columns.{name}: {error}") from None
    if not expression.meta.root_names():
        raise InputError(f"{part}.columns.{name}: {column.sql!r} names no column of the file.")
    return expression


def _dtype(declared: ColumnType) -> pl.DataType:
    return TYPES[declared.type]


def _of_nothing(name: str) -> tuple[pl.DataType, ...]:
    """Nothing but nulls goes with every type; an id must have one, and text takes all that comes later."""
    return (pl.String() if name in IDS else pl.Null(),)


def _check_id(name: str, stored: pl.DataType) -> None:
    if stored.is_nested() or stored.is_temporal() or stored == pl.Boolean:
        mend = (
            "take a field or an element of it, such as item.id or items[].id" if stored.is_nested() else "map another"
        )
        raise InputError(f"{name} holds {stored}; an id is an integer or a string: {mend}, or convert the file")
