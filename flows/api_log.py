"""Events as the log has them -> columns as the dataset calls them, by the expressions that prepare them: one row in, one out.

{"sku": "lamp-1", "at": "08.03.2026 09:00", "price": 10, "number": 3}
-> item_id lamp-1, timestamp 2026-03-08 09:00 UTC, price 10, total 30

Done are names, null words and times of `events`, columns that are computed there, and the steps derive and rename. Steps that
look at other rows or other tables are not: filters and joins.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from modeling.service.api.log import Log
from preprocessing.source.formats import NULL_WORDS
from preprocessing.source.times import TimeForms, to_time
from preprocessing.sql import columns_in, read_sql
from preprocessing.steps import NEEDED
from schemas.column_types import Computed
from schemas.columns import TIMESTAMP
from schemas.dataset import Dataset
from schemas.errors import InputError


def log_of(dataset: Dataset | None) -> Log:
    """How the log of a dataset is read; without one as it comes."""
    if dataset is None:
        return Log()
    events = dataset.events
    names = {
        theirs: ours for ours, theirs in events.columns.items() if isinstance(theirs, str) and theirs.isidentifier()
    }
    computed = {ours: made.sql for ours, made in events.columns.items() if isinstance(made, Computed)}
    expressions = Expressions(dataset, names, computed)
    return Log(
        names=names,
        null_words=frozenset(NULL_WORDS if events.null_words is None else events.null_words),
        needs=expressions.needs,
        makes=frozenset(computed),
        derive=expressions.apply,
    )


@dataclass(frozen=True)
class Expressions:
    """What is computed of each event alone. Columns of the file are called as in the file, or as the dataset calls them."""

    dataset: Dataset
    names: dict[str, str]
    computed: dict[str, str]

    @property
    def needs(self) -> frozenset[str]:
        """The columns that expressions read."""
        read = {self.names.get(name, name) for text in self.computed.values() for name in columns_in(text)}
        for kind, columns in self._steps():
            read |= (
                set(columns) if kind == "rename" else {name for text in columns.values() for name in columns_in(text)}
            )
        return frozenset(read)

    def apply(self, table: pl.DataFrame) -> pl.DataFrame:
        """The table with what is computed of it; an expression whose columns are not there is left out.

        Raises:
            InputError: for values that an expression or the form of times does not take.
        """
        table = self._with_times(table)
        typed = self._typed(table)
        for name, text in self.computed.items():
            ours = {raw: self.names.get(raw, raw) for raw in columns_in(text)}
            if set(ours.values()) <= set(typed.columns):
                row = typed.select(pl.col(column).alias(raw) for raw, column in ours.items())
                table = table.with_columns(_evaluated(row, name, text))
        for kind, columns in self._steps():
            for name, text in columns.items():
                if kind == "rename" and name in table.columns:
                    table = table.rename({name: text})
                elif kind == "derive" and set(columns_in(text)) <= set(table.columns):
                    table = table.with_columns(_evaluated(self._typed(table), name, text))
        return table

    def _typed(self, table: pl.DataFrame) -> pl.DataFrame:
        """The table with numbers where all of a column is; ids, and what is declared to be text, stay text."""
        types = self.dataset.events.types
        text = {*NEEDED, *(name for name, declared in types.items() if declared.type == "text")}
        columns = [name for name in table.columns if name not in text and table.schema[name] == pl.String]
        if TIMESTAMP in table.columns and table.schema[TIMESTAMP] == pl.String:
            table = table.with_columns(self._moments(table[TIMESTAMP]))
        return table.with_columns(_number(table[name]) for name in columns)

    def _steps(self) -> list[tuple[str, dict[str, str]]]:
        return [
            (step.name, step.options["columns"])
            for step in self.dataset.steps
            if step.name in ("derive", "rename") and isinstance(step.options.get("columns"), dict)
        ]

    def _with_times(self, table: pl.DataFrame) -> pl.DataFrame:
        """Times in a form of their own as moments; those that are read in any case stay as they are written."""
        events = self.dataset.events
        if TIMESTAMP not in table.columns or not (events.time_format or events.time_unit != "auto"):
            return table
        moments, text = self._moments(table[TIMESTAMP]), table[TIMESTAMP]
        odd = moments.is_null() & text.is_not_null()
        if odd.any():
            wanted, value = ", ".join(events.time_format) or f"numbers of {events.time_unit}", text.filter(odd)[0]
            raise InputError(f"Column 'timestamp' of events takes times as {wanted}, but a row holds {value!r}.")
        return table.with_columns(moments)

    def _moments(self, text: pl.Series) -> pl.Series:
        """Text as moments, as preparation reads it; null where it is none."""
        events = self.dataset.events
        whole = text.cast(pl.Int64, strict=False)
        stored = whole if whole.null_count() == text.null_count() and not events.time_format else text
        forms = TimeForms(events.time_unit, events.time_zone, tuple(events.time_format))
        return stored.to_frame().select(to_time(pl.col(text.name), stored.dtype, forms).alias(text.name)).to_series()


def _evaluated(rows: pl.DataFrame, name: str, text: str) -> pl.Series:
    try:
        return rows.select(read_sql(text).alias(name)).to_series()
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"Column {name!r} of events is {text!r}, which does not take these values ({reason})."
        ) from None


def _number(text: pl.Series) -> pl.Series:
    """A column of text as numbers where all of it is: what JSON had as numbers came as text."""
    if text.null_count() == len(text):
        return pl.Series(text.name, [None] * len(text))  # of any type
    for dtype in (pl.Int64, pl.Float64):
        number = text.cast(dtype, strict=False)
        if number.null_count() == text.null_count():
            return number
    return text
