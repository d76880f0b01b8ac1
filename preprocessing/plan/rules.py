"""The rules of a dataset, compiled: those that are always checked, then those it names, in the order they are tried.

Values that fit their column's type, ids and times that are there, times of the past but not of long ago, and (where asked
for) known items are checked first and always; naming one of these rules in the dataset sets its options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import polars as pl

from preprocessing import checks
from preprocessing.checks.base import LOCAL_DAY, Check
from preprocessing.frames import collect
from preprocessing.source.canonical import as_found
from preprocessing.source.values import local_day
from preprocessing.sql import type_on
from schemas import plugins
from schemas.columns import COUNT, ITEM_ID, POSITION, RULE, SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset
from schemas.errors import InputError, parse, unknown

RULE_CODE = "rule code"  # of a marked row: 0 when good, n when the n-th rule is the first it breaks
EXAMPLES = 3


@dataclass(frozen=True)
class Rules:
    """All rules of a dataset, in the order they are tried."""

    checks: tuple[Check, ...]
    time_zone: str

    @classmethod
    def of(cls, dataset: Dataset, columns: pl.Schema) -> Rules:
        """The rules for events with these columns as they are read, checked before any event is.

        Raises:
            InputError: for a rule, an option or a column that is not known, with the known ones.
        """
        always = list(always_checked(dataset, columns))
        named = []
        for entry in dataset.checks:
            check_class = plugins.find(checks, entry.name, dataset.plugins)
            check = parse(check_class, entry.options, f"check {entry.name}")
            places = [place for place, other in enumerate(always) if check.says_the_same(other)]
            if places:
                (place,) = places
                always[place] = check.model_copy(update={"title": check.title or always[place].title})
            else:
                named.append(check)
        bound = [_bound(check, dataset, columns) for check in (*always, *named)]
        for place, check in enumerate(bound):
            if check.name in {other.name for other in bound[:place]}:
                raise InputError(f"Two checks are called {check.name!r}; give one of them another `title`.")
        return cls(tuple(bound), dataset.time_zone)

    @property
    def names(self) -> tuple[str, ...]:
        """`names[n - 1]` is the rule of code n."""
        return tuple(check.name for check in self.checks)

    def mark(self, events: pl.LazyFrame, now: datetime, *, alone: bool = False) -> pl.LazyFrame:
        """Add the column RULE_CODE. Expects all events of some users on some days; the order of rows may change.

        `alone`: only by rules that look at each row alone; then more rows may seem good.

        Raises:
            InputError: for a rule that cannot be applied to a column's type.
        """
        schema = events.collect_schema()
        _try_on_types(self.checks, schema, now)
        events = events.with_columns(pl.lit(0, dtype=pl.Int32).alias(RULE_CODE))
        for order, group in groupby(enumerate(self.checks, start=1), key=_sorted_for):
            if order and alone:
                continue
            code = pl.col(RULE_CODE)
            for number, check in reversed([(number, check) for number, check in group if not check.keeps_rows]):
                code = pl.when(check.bad(now)).then(pl.lit(number, dtype=pl.Int32)).otherwise(code)
            marked = pl.when(pl.col(RULE_CODE) == 0).then(code).otherwise(RULE_CODE).alias(RULE_CODE)
            if order:
                events = self._sort(events, order[1:], schema).with_columns(marked).drop(LOCAL_DAY)
            else:
                events = events.with_columns(marked)
        return events

    def as_found(self, bad: pl.LazyFrame) -> pl.LazyFrame:
        """Marked bad rows as they were in the source, with the name of the first rule each breaks."""
        columns = bad.collect_schema().names()
        originals = [name for name in columns if as_found(name) in columns]
        codes = pl.LazyFrame(
            {RULE_CODE: range(1, len(self.checks) + 1), RULE: self.names}, {RULE_CODE: pl.Int32, RULE: pl.String}
        )
        named = bad.join(codes, on=RULE_CODE, how="left", maintain_order="left")
        return self.without_private(named.with_columns(**{name: pl.col(as_found(name)) for name in originals}))

    def nulled(self, marked: pl.LazyFrame, now: datetime, day: str) -> pl.LazyFrame:
        """Of marked rows that are good: `day`, `rule`, `count`, how many lost a value that did not fit, by rule."""
        good = marked.filter(pl.col(RULE_CODE) == 0)
        count = pl.len().cast(pl.Int64).alias(COUNT)
        lost = [
            good.filter(check.bad(now)).group_by(day).agg(count).select(day, pl.lit(check.name).alias(RULE), COUNT)
            for check in self.checks
            if check.keeps_rows
        ]
        return pl.concat(lost) if lost else good.clear().select(day, pl.lit("").alias(RULE), pl.lit(0).alias(COUNT))

    def without_private(self, good: pl.LazyFrame, *, code: bool = False) -> pl.LazyFrame:
        """Rows without the values as they were found, and without RULE_CODE unless `code`."""
        columns = good.collect_schema().names()
        private = [*([] if code else [RULE_CODE]), *map(as_found, columns)]
        return good.drop(name for name in private if name in columns)

    def examples(self, bad: pl.LazyFrame, name: str) -> list[Any]:
        """The smallest few of the values that break the rule `name`, of rows as they were found.

        A value if the rule looks at one column, a dictionary by column if it looks at several.
        """
        looks_at = list(self.checks[self.names.index(name)].looks_at)
        found = collect(bad.filter(pl.col(RULE) == name).select(looks_at).unique().sort(looks_at).head(EXAMPLES))
        return found[looks_at[0]].to_list() if len(looks_at) == 1 else found.to_dicts()

    def verdict(self, counts: dict[str, int], rows: int, day: str, examples: Callable[[str], list[Any]]) -> None:
        """Let a day with these many bad rows by rule pass, or not.

        Raises:
            InputError: when more of the day's rows break a rule than it tolerates.
        """
        for check in self.checks:
            count = counts.get(check.name, 0)
            if count and count > check.limit * rows:
                listed = ", ".join(str(value) for value in examples(check.name)[:EXAMPLES])
                such_as = f", such as {listed}" if listed else ""
                raise InputError(
                    f"check {check.name}: {count:,} of {rows:,} rows of {day} ({count / rows:.2%}) break it{such_as}; it "
                    f"tolerates {check.limit:.2%}. Mend the source, or raise `tolerate`."
                )

    def _sort(self, events: pl.LazyFrame, order: tuple[str, ...], schema: pl.Schema) -> pl.LazyFrame:
        dated = TIMESTAMP in schema
        day = local_day(pl.col(TIMESTAMP), self.time_zone) if dated else pl.lit(None, dtype=pl.Date)
        first = (RULE_CODE, USER_ID, LOCAL_DAY, *order)
        others = [name for name, dtype in schema.items() if name not in first and not dtype.is_nested()]
        return events.with_columns(day.alias(LOCAL_DAY)).sort(*dict.fromkeys(first), *others)


def _sorted_for(numbered: tuple[int, Check]) -> tuple[Any, ...]:
    """Rules that look at one row only are tried together; one that compares rows only sees those good so far."""
    number, check = numbered
    return (number, *check.in_order_of) if check.in_order_of else ()


def always_checked(dataset: Dataset, columns: pl.Schema) -> Iterator[Check]:
    """The rules of every dataset: of what every row must have first, then of other columns in their order."""
    from preprocessing.checks.known_values import KnownValues
    from preprocessing.checks.not_before import NotBefore
    from preprocessing.checks.not_in_future import NotInFuture
    from preprocessing.checks.not_null import NotNull
    from preprocessing.checks.readable import Readable

    needed = [name for name in (USER_ID, ITEM_ID, TIMESTAMP, POSITION) if name in dataset.events.columns]
    if dataset.sessions.rule == "given" or USER_ID not in dataset.events.columns:
        needed.insert(0, SESSION_ID)
    for name in needed:
        if as_found(name) in columns:
            yield Readable(column=name, title=f"{name}_unparsable")
        yield NotNull(column=name, title=f"{name}_null")
    if TIMESTAMP in needed:
        yield NotBefore(title="too_long_ago")
        yield NotInFuture(title="in_future")
    for name in dataset.events.columns:
        if as_found(name) in columns and name not in needed:
            declared = dataset.events.types.get(name)
            options = declared.model_dump(include={"unfit", "tolerate"}) if declared else {}
            yield Readable(column=name, title=f"{name}_unparsable", **options)
    if dataset.items and dataset.items.unknown == "quarantine":
        yield KnownValues(column=ITEM_ID, table="items", title="unknown_item")


def _bound(check: Check, dataset: Dataset, columns: pl.Schema) -> Check:
    try:
        for name in check.looks_at:
            if name not in columns:
                raise unknown("column", name, dataset.events.columns)
        return check.bind(dataset, columns)
    except InputError as error:
        raise InputError(f"check {check.name}: {error}") from None


def _try_on_types(checks: tuple[Check, ...], schema: pl.Schema, now: datetime) -> None:
    """Let what does not fit a column's type fail here, with the rule's name."""
    types = {**schema, LOCAL_DAY: pl.Date()}
    for check in checks:
        try:
            became = type_on(check.bad(now), types)
        except pl.exceptions.PolarsError as error:
            raise InputError(_misfit(check, schema, str(error).partition("\n")[0])) from None
        if became != pl.Boolean:
            raise InputError(_misfit(check, schema, f"it gives {became}, not true or false"))


def _misfit(check: Check, schema: pl.Schema, why: str) -> str:
    types = ", ".join(f"{name} ({schema[name]})" for name in check.looks_at)
    return f"check {check.name}: it does not fit {types}: {why}."
