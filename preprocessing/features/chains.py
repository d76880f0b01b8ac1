"""The features of a dataset: chains of encoders that learn from each day's rows and encode rows with what is known.

Rows are kept events in order of session and time, with `day`, the day their session closes, and `session_index`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl

from preprocessing import encoders
from preprocessing.encoders import Encoder, Expressions
from preprocessing.encoders.category import Category
from preprocessing.sessions import changed
from schemas import plugins
from schemas.columns import DAY, ITEM_ID, VALUE
from schemas.dataset import Dataset, Feature
from schemas.errors import InputError, parse, unknown
from schemas.features import FeatureColumn, FeatureSchema, LabelColumn

LARGEST_FLOAT32 = 3.4e38
Knowledge = dict[str, pl.DataFrame]  # by the name `Chain.keeps`: what encoders have learnt so far


@dataclass(frozen=True)
class Chain:
    """One feature: a column and the encoders applied to it, in order."""

    name: str
    column: str
    encoders: tuple[Encoder, ...]
    per_item: bool
    per: Literal["event", "session"] = "event"
    many: bool = False
    """Whether the column holds lists: each event has any number of values."""
    floats: bool = False
    """Whether it holds floats, of which NaN counts as null: no join finds it reliably."""

    @property
    def kind(self) -> Literal["categorical", "continuous"]:
        """What comes out of the last encoder."""
        return self.encoders[-1].kind

    def keeps(self, place: int) -> str:
        """The name under which what the encoder at `place` learns is kept; empty when it learns nothing."""
        encoder = self.encoders[place]
        if encoder.learns == "nothing":
            return ""
        if isinstance(encoder, Category):
            return encoder.vocabulary or self.name
        return f"{self.name}.{place}"


@dataclass(frozen=True)
class Fitted:
    """A chain and the tables to look up what its first encoders have learnt (None: an encoder that learns nothing)."""

    chain: Chain
    tables: tuple[pl.DataFrame | None, ...] = ()

    @property
    def next(self) -> Encoder | None:
        """The first encoder that has no table yet but needs one."""
        place = self.place
        return self.chain.encoders[place] if place < len(self.chain.encoders) else None

    @property
    def place(self) -> int:
        """Where `next` stands in the chain; past its end when all is fitted."""
        waiting = enumerate(self.chain.encoders[len(self.tables) :], start=len(self.tables))
        return next((place for place, one in waiting if one.learns != "nothing"), len(self.chain.encoders))

    @property
    def keeps(self) -> str:
        """The name under which what `next` learns is kept."""
        return self.chain.keeps(self.place)

    def with_table(self, table: pl.DataFrame) -> Fitted:
        """The same with the table of `next`."""
        skipped = [None] * (self.place - len(self.tables))
        return replace(self, tables=(*self.tables, *skipped, table))

    def apply(self, rows: pl.LazyFrame) -> tuple[pl.LazyFrame, pl.Expr]:
        """The rows with helper columns, and the value up to the encoder that is not fitted yet."""
        value: pl.Expr = pl.col(self.chain.column)
        if self.chain.floats:
            value = pl.when(value.is_not_nan()).then(value)
        for place, encoder in enumerate(self.chain.encoders[: self.place]):
            prefix = f"{self.chain.name}.{place}"
            table = self.tables[place] if place < len(self.tables) else None
            rows, value = encoder.add_columns(rows, value, prefix)
            learnt: Expressions = {}
            if table is not None:
                rows, learnt = look_up(rows, encoder.key(value), table, prefix)
            value = encoder.encode(value, learnt)
        return rows, value

    def encode(self, rows: pl.LazyFrame) -> tuple[pl.LazyFrame, pl.Expr]:
        """The rows with helper columns, and the encoded value, as it is stored."""
        if not self.chain.many:
            rows, value = self.apply(rows)
            return rows, as_stored(value, self.chain.kind)
        # No engine but the CPU's computes on lists: their elements become rows, and lists again.
        row, column, name = f"{self.chain.name} row", self.chain.column, f"{self.chain.name} list"
        rows = rows.with_row_index(row)
        elements, value = self.apply(rows.select(row, DAY, column).explode(column, empty_as_null=True))
        alone = changed(row) & (pl.col(row).shift(-1).ne_missing(pl.col(row)))
        elements = elements.filter(~(alone & pl.col(column).is_null())).select(row, value.alias(name))
        lists = elements.group_by(row, maintain_order=True).agg(pl.col(name))
        return rows.join(lists, on=row, how="left", maintain_order="left"), pl.col(name).fill_null([])

    def learn(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """A plan for what `next` learns from rows."""
        if self.chain.many:
            rows = rows.select(DAY, self.chain.column).explode(self.chain.column, empty_as_null=True)
        rows, value = self.apply(rows)
        encoder = self.next
        assert encoder is not None
        rows, value = encoder.add_columns(rows, value, f"{self.chain.name}.{self.place}")
        plan = encoder.learn(rows, value)
        assert plan is not None
        return plan


def look_up(rows: pl.LazyFrame, key: pl.Expr, table: pl.DataFrame, prefix: str) -> tuple[pl.LazyFrame, Expressions]:
    """The rows with the statistics of their day and value, and expressions for them by name."""
    by = [name for name in (DAY, VALUE) if name in table.columns]
    names = [name for name in table.columns if name not in by]
    if by == [DAY] and table.height == 1:  # one day: numbers, no join
        return rows, {name: pl.lit(table[name][0], dtype=table.schema[name]) for name in names}
    renamed = table.lazy().select(*(pl.col(name).alias(f"{prefix} {name}") for name in table.columns))
    left = {DAY: pl.col(DAY), VALUE: key}
    rows = rows.join(
        renamed,
        left_on=[left[name] for name in by],
        right_on=[f"{prefix} {name}" for name in by],
        how="left",
        maintain_order="left",
    )
    return rows, {name: pl.col(f"{prefix} {name}") for name in names}


def build_chains(dataset: Dataset, columns: pl.Schema) -> list[Chain]:
    """The dataset's features, `item_id` first, checked against the columns events will have.

    Raises:
        InputError: for encoders, options and columns that are not known, and chains that do not fit together.
    """
    wanted = {ITEM_ID: Feature.model_validate("category"), **dataset.features}
    chains = []
    for name, feature in wanted.items():
        column = feature.column or name
        where = f"feature {name}"
        if column not in columns:
            raise InputError(f"{where}: {unknown('column', column, columns)} Steps such as join_items add columns.")
        chain = tuple(_build_encoder(entry.name, entry.options, dataset, where) for entry in feature.encode)
        _check_chain(chain, column, columns, where)
        joined = dataset.items is not None and column in dataset.items.columns
        per_item = column == ITEM_ID or (joined and column not in dataset.events.columns)
        dtype = columns[column]
        floats = dtype.inner.is_float() if isinstance(dtype, pl.List) else dtype.is_float()
        chains.append(Chain(name, column, chain, per_item, feature.per, isinstance(dtype, pl.List), floats))
    items = chains[0].encoders[-1]
    if chains[0].column != ITEM_ID or chains[0].many or not isinstance(items, Category):
        raise InputError("feature item_id: it must be made from item_id by category.")
    if items.unknown_buckets > 1:
        raise InputError(
            "feature item_id: unknown_buckets would give several items one id, and a model that predicts it names none of "
            "them. Leave it out; rare items share the id of unknown ones."
        )
    _check_shared(chains)
    return chains


def transform(rows: pl.LazyFrame, fitted: list[Fitted], keep: list[str]) -> pl.LazyFrame:
    """The columns `keep` and one column a feature: Int32 ids, Float32 numbers with 0 for what is null or not finite."""
    # A kept column must not shadow a feature of the same name.
    features: Expressions = {}
    for one in fitted:
        rows, features[one.chain.name] = one.encode(rows)
    kept = {name: pl.col(name) for name in keep if name not in features}
    return rows.select(**kept, **features)


def as_stored(value: pl.Expr, kind: str) -> pl.Expr:
    """Ids as Int32; numbers as Float32, 0 where there is none."""
    if kind == "categorical":
        return value.cast(pl.Int32)
    number = value.cast(pl.Float64)
    finite = pl.when(number.abs() <= LARGEST_FLOAT32).then(number).otherwise(0.0)
    return finite.cast(pl.Float32)


def learners(chains: list[Chain]) -> dict[str, Encoder]:
    """The encoders that learn, by the name under which it is kept."""
    return {
        chain.keeps(place): encoder
        for chain in chains
        for place, encoder in enumerate(chain.encoders)
        if chain.keeps(place)
    }


def merge(chains: list[Chain], known: Knowledge, learnt: Knowledge) -> Knowledge:
    """What is known after rows of later days taught `learnt`; what they did not teach stays."""
    encoders_by_name = learners(chains)
    return known | {name: encoders_by_name[name].merge(known.get(name), parts) for name, parts in learnt.items()}


def fit_next(fitted: list[Fitted], known: Knowledge, learnt: Knowledge, merged: Knowledge) -> list[Fitted]:
    """The features with the table of their next encoder, where `learnt` has taught it."""
    done = []
    for one in fitted:
        encoder, name = one.next, one.keeps if one.next else ""
        if encoder and name in learnt:
            one = one.with_table(encoder.table(known.get(name), learnt[name], merged[name]))
        done.append(one)
    return done


def feature_schema(dataset: Dataset, chains: list[Chain], known: Knowledge) -> FeatureSchema:
    """What the encoded columns mean to who knows what `known` says: the days that are trained on."""
    columns = []
    for chain in chains:
        encoder, name = chain.encoders[-1], chain.keeps(len(chain.encoders) - 1)
        numbers = known[name].row(0, named=True) if encoder.learns == "numbers" and name in known else {}
        mean, std = encoder.scale(numbers)
        categorical = chain.kind == "categorical"
        columns.append(
            FeatureColumn(
                name=chain.name,
                kind=chain.kind,
                source=chain.column,
                dtype="int32" if categorical else "float32",
                cardinality=encoder.cardinality(known.get(name)),
                vocabulary=f"vocabularies/{name}.parquet" if isinstance(encoder, Category) else None,
                per_item=chain.per_item,
                per=chain.per,
                many=chain.many,
                transform=tuple(_name(one) for one in chain.encoders),
                mean=mean,
                std=std,
            )
        )
    return FeatureSchema(
        dataset=dataset.name,
        max_length=dataset.sessions.max_length,
        time_zone=dataset.time_zone,
        split=dataset.split,
        columns=tuple(columns),
        labels=tuple(LabelColumn(name=one.column, per=one.per, source=one.column) for one in dataset.labels),
    )


def describe(chains: list[Chain]) -> dict[str, Any]:
    """All encoders with their options and where what they learnt is kept: the content of `encoders.json`."""
    return {
        chain.name: {
            "column": chain.column,
            "encoders": [
                {"name": _name(encoder), "options": encoder.model_dump(mode="json")}
                | ({"learnt": f"{chain.keeps(place)}.parquet"} if chain.keeps(place) else {})
                for place, encoder in enumerate(chain.encoders)
            ],
        }
        for chain in chains
    }


def _name(encoder: Encoder) -> str:
    return type(encoder).__module__.rpartition(".")[2]


def _build_encoder(name: str, options: dict[str, Any], dataset: Dataset, where: str) -> Encoder:
    try:
        encoder_class = plugins.find(sys.modules[encoders.__name__], name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if "time_zone" in encoder_class.model_fields:
        options = {"time_zone": dataset.time_zone, **options}
    encoder: Encoder = parse(encoder_class, options, f"{where}: {name}")
    return encoder


def _check_chain(chain: tuple[Encoder, ...], column: str, columns: pl.Schema, where: str) -> None:
    dtype = columns[column]
    if not chain:
        raise InputError(f"{where}: no encoder; known: {', '.join(plugins.names(encoders))}.")
    of_lists = (
        isinstance(dtype, pl.List) and not dtype.inner.is_nested() and [_name(one) for one in chain] == ["category"]
    )
    if dtype.is_nested() and not of_lists:
        raise InputError(
            f"{where}: column {column!r} holds {dtype}; only category, alone, takes lists, of plain values."
        )
    names = {pl.Datetime: "times", pl.Date: "dates", pl.String: "text"}
    kind = "numbers" if dtype.is_numeric() else names.get(dtype.base_type(), str(dtype))
    for encoder in chain:
        try:
            encoder.check(column, columns)
        except InputError as error:
            raise InputError(f"{where}: {_name(encoder)}: {error}") from None
        if encoder.takes not in ("anything", kind):
            text = f" Declare its type where it is mapped, such as `types: {{{column}: float}}`."
            wrong = f"{where}: {_name(encoder)} takes {encoder.takes}, but gets {kind} (column {column!r})."
            raise InputError(wrong + (text if dtype == pl.String else ""))
        kind = "numbers" if encoder.kind == "continuous" else "ids, after which nothing can follow,"
    for encoder in chain[:-1]:
        if encoder.kind == "categorical":
            raise InputError(f"{where}: {_name(encoder)} gives ids and must be the last encoder.")


def _check_shared(chains: list[Chain]) -> None:
    """Features that share a vocabulary must agree on it."""
    shared: dict[str, Chain] = {}
    for chain in chains:
        encoder = chain.encoders[-1]
        if isinstance(encoder, Category) and encoder.vocabulary:
            first = shared.setdefault(encoder.vocabulary, chain)
            if encoder != first.encoders[-1] or len(chain.encoders) > 1:
                raise InputError(
                    f"feature {chain.name}: it shares the vocabulary {encoder.vocabulary!r} with {first.name}, "
                    "so both must have the same options and no other encoder."
                )
            if encoder.vocabulary in {other.name for other in chains if other is not first}:
                raise InputError(f"feature {chain.name}: the vocabulary needs a name that no other feature has.")
