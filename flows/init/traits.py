"""What the values of a column are like: their kind, how many there are, how often each comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from flows.init.times import TimeForm, of_clock, time_form
from preprocessing.source.values import COMMA, GROUPED, with_point

Kind = Literal["empty", "boolean", "integer", "number", "clock", "text"]
NUMBERS = 0.99  # share of values that are numbers, where a column holds numbers
NO_VALUES = ("NA", "N/A", "n/a", "None", "none", "nan", "NaN", "(null)", "undefined", "-", "(not set)")
WHOLE = r"^[+-]?\d+(\.0+)?$"
ZEROS = r"^0\d+$"


@dataclass(frozen=True)
class Traits:
    """One column, as its values show it."""

    name: str
    kind: Kind
    values: pl.Series
    """All rows: numbers as numbers, text without spaces around it and without words for null."""
    stored: pl.DataType
    form: TimeForm | None
    """How it is times; None when it is none."""
    unique: int
    odd: float
    """Of a number: the share of values that are none."""
    zeros: bool
    """Whether some values are digits that begin with 0."""
    comma: bool
    """Whether numbers have a decimal comma."""
    no_values: tuple[str, ...]
    """Words that stand for null."""

    @property
    def nulls(self) -> float:
        """The share of rows without a value."""
        return self.values.null_count() / max(1, len(self.values))

    @property
    def each(self) -> float:
        """How many rows a value has on average."""
        return (len(self.values) - self.values.null_count()) / max(1, self.unique)

    @property
    def may_be_id(self) -> bool:
        """Whether values may name users, items or sessions: some come again, and they are no sentences and no measures."""
        filled = len(self.values) - self.values.null_count()
        if self.kind not in ("integer", "text") or self.unique < 2 or (self.unique == filled and filled > 20):
            return False
        return self.kind == "integer" or _mean_length(self.values) <= 80

    def examples(self, most: int = 3) -> str:
        """Some values, for people."""
        found = self.values.drop_nulls().unique(maintain_order=True).head(most).to_list()
        return ", ".join(str(value)[:30] for value in found) or "nothing but nulls"


def traits_of(rows: pl.DataFrame, day_first: bool) -> dict[str, Traits]:
    """What each column is like, by its name."""
    return {name: _of(rows[name], day_first) for name in rows.columns}


def _of(column: pl.Series, day_first: bool) -> Traits:
    stored, odd, zeros, comma = column.dtype, 0.0, False, False
    words: tuple[str, ...] = ()
    if isinstance(stored, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if isinstance(stored, pl.Decimal):
        column = column.cast(pl.Float64) if stored.scale else column.cast(pl.Int64, strict=False)
    kind: Kind = "text"
    if column.dtype == pl.String:
        column = column.str.strip_chars()
        column = column.to_frame().select(pl.when(pl.first() != "").then(pl.first()))[column.name]
        column, words = _without_words(column)
    form = time_form(column.drop_nulls(), day_first)
    if column.null_count() == len(column) or column.dtype == pl.Null:
        kind = "empty"
    elif column.dtype == pl.Boolean:
        kind = "boolean"
    elif column.dtype.is_integer():
        kind = "integer"
    elif column.dtype.is_float():
        column = column.fill_nan(None)
        whole = bool((column == column.round()).all())
        kind, column = ("integer", column.cast(pl.Int64, strict=False)) if whole else ("number", column)
    elif column.dtype == pl.String:
        kind, column, odd, zeros, comma = _of_text(column)
    unique = column.drop_nulls().n_unique()
    return Traits(column.name, kind, column, stored, form, unique, odd, zeros, comma, words)


def _of_text(column: pl.Series) -> tuple[Kind, pl.Series, float, bool, bool]:
    filled = column.drop_nulls()
    zeros = bool(filled.str.contains(ZEROS).any())
    if of_clock(filled):
        return "clock", column, 0.0, zeros, False
    if filled.str.to_lowercase().is_in(["true", "false"]).all():
        return "boolean", column, 0.0, False, False
    if not zeros and filled.str.contains(WHOLE).mean() == 1:
        return "integer", column.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False), 0.0, False, False
    comma = bool(filled.str.contains(",").any() and filled.str.contains(f"{COMMA}|{GROUPED}|{WHOLE}").mean() > NUMBERS)  # type: ignore[operator]
    numbers = column.to_frame().select(with_point(pl.first()) if comma else pl.first())[column.name]
    numbers = numbers.cast(pl.Float64, strict=False)
    odd = (numbers.null_count() - column.null_count()) / max(1, len(filled))
    if odd <= 1 - NUMBERS and not zeros:
        return "number", numbers, odd, False, comma
    return "text", column, 0.0, zeros, False


def _without_words(column: pl.Series) -> tuple[pl.Series, tuple[str, ...]]:
    """Text without words such as NA, where they are not all there is; and which of them it has."""
    seen = column.is_in(list(NO_VALUES))
    if not seen.any() or seen.all():
        return column, ()
    words = tuple(sorted(set(column.filter(seen).to_list())))
    return column.to_frame().select(pl.when(~pl.first().is_in(list(words))).then(pl.first()))[column.name], words


def _mean_length(values: pl.Series) -> float:
    return float(values.cast(pl.String).str.len_chars().mean() or 0)  # type: ignore[arg-type]
