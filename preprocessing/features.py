"""The features of a dataset: chains of encoders, fitted on training rows, then applied to all rows.

`fit` and `transform` take lazy frames in order of session and time with the boolean column `training`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from preprocessing import encoders
from preprocessing.encoders import Encoder
from preprocessing.engine import collect_all
from preprocessing.files import SAMPLE_ROWS
from preprocessing.sessions import is_last
from schemas import plugins
from schemas.columns import ITEM_ID
from schemas.dataset import Dataset, Feature
from schemas.errors import InputError, parse, unknown
from schemas.features import FeatureColumn, FeatureSchema

TRAINING = "training"  # rows that statistics may be fit on
LARGEST_FLOAT32 = 3.4e38


@dataclass(frozen=True)
class Chain:
    """One feature: a column and the encoders applied to it, in order."""

    name: str
    column: str
    encoders: tuple[Encoder, ...]
    per_item: bool

    @property
    def kind(self) -> Literal["categorical", "continuous"]:
        """What comes out of the last encoder."""
        return self.encoders[-1].kind

    def table_file(self, place: int) -> str:
        """Where the fitted table of the encoder at `place` is kept below the artifact; empty for numbers."""
        folder = self.encoders[place].table_folder
        return f"{folder}/{self.name}.parquet" if folder else ""


@dataclass(frozen=True)
class Fitted:
    """A chain and what its encoders learnt."""

    chain: Chain
    tables: tuple[pl.DataFrame | None, ...] = ()

    def apply(self, events: pl.LazyFrame) -> tuple[pl.LazyFrame, pl.Expr]:
        """The events with helper columns, and the value after as many encoders as are fitted."""
        value = pl.col(self.chain.column)
        for encoder, table in zip(self.chain.encoders, self.tables, strict=False):
            events = encoder.join(events, value, table, self.chain.name)
            value = encoder.encode(value, table, self.chain.name)
        return events, value


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
        _check_chain(chain, column, columns[column], where)
        joined = dataset.items is not None and column in dataset.items.columns
        per_item = column == ITEM_ID or (joined and column not in dataset.events.columns)
        chains.append(Chain(name, column, chain, per_item))
    if chains[0].column != ITEM_ID or chains[0].kind != "categorical":
        raise InputError("feature item_id: it must be made from item_id by category.")
    return chains


def mark_training(events: pl.LazyFrame, dataset: Dataset, test_sessions: pl.LazyFrame) -> pl.LazyFrame:
    """Add the column `training`: rows before the test day, or all but each history's last. Test rows teach nothing."""
    if dataset.split == "leave_one_out":
        return events.with_columns((~is_last()).alias(TRAINING))
    (key,) = test_sessions.collect_schema().names()
    held_out = test_sessions.with_columns(pl.lit(False).alias(TRAINING))
    marked = events.join(held_out, on=key, how="left", maintain_order="left")
    return marked.with_columns(pl.col(TRAINING).fill_null(True))


def fit(events: pl.LazyFrame, chains: list[Chain]) -> list[Fitted]:
    """What every encoder learns, first encoders first: the second sees what the first makes of the rows.

    Raises:
        InputError: when a column has no value at all in the training rows, or no item is seen often enough.
    """
    fitted = [Fitted(chain) for chain in chains]
    training = events.filter(pl.col(TRAINING))
    for place in range(max(len(chain.encoders) for chain in chains)):
        plans: dict[int, pl.LazyFrame] = {}
        for number, one in enumerate(fitted):
            if place < len(one.chain.encoders):
                encoder = one.chain.encoders[place]
                rows, value = one.apply(events if encoder.fits_on == "all rows" else training)
                plan = encoder.fit(rows, value)
                if plan is not None:
                    plans[number] = plan
        learnt = dict(zip(plans, collect_all(list(plans.values())), strict=True))
        fitted = [
            Fitted(one.chain, (*one.tables, learnt.get(number))) if place < len(one.chain.encoders) else one
            for number, one in enumerate(fitted)
        ]
    _check_values(training, fitted)
    return fitted


def transform(events: pl.LazyFrame, fitted: list[Fitted], keep: list[str]) -> pl.LazyFrame:
    """The columns `keep` and one column a feature: Int32 ids, Float32 numbers with 0 for what is null or not finite."""
    # A kept column must not shadow a feature of the same name.
    features: dict[str, pl.Expr] = {}
    for one in fitted:
        events, value = one.apply(events)
        if one.chain.kind == "categorical":
            features[one.chain.name] = value.cast(pl.Int32)
        else:
            number = value.cast(pl.Float64)
            finite = pl.when(number.abs() <= LARGEST_FLOAT32).then(number).otherwise(0.0)
            features[one.chain.name] = finite.cast(pl.Float32)
    kept = {name: pl.col(name) for name in keep if name not in features}
    return events.select(**kept, **features)


def feature_schema(dataset: Dataset, fitted: list[Fitted]) -> FeatureSchema:
    """What the encoded columns mean."""
    columns = []
    for one in fitted:
        last, table = one.chain.encoders[-1], one.tables[-1]
        mean, std = last.scale(table)
        categorical = one.chain.kind == "categorical"
        columns.append(
            FeatureColumn(
                name=one.chain.name,
                kind=one.chain.kind,
                source=one.chain.column,
                dtype="int32" if categorical else "float32",
                cardinality=last.cardinality(table),
                vocabulary=one.chain.table_file(len(one.tables) - 1) or None if categorical else None,
                per_item=one.chain.per_item,
                transform=tuple(_name(encoder) for encoder in one.chain.encoders),
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
    )


def describe(fitted: list[Fitted]) -> dict[str, Any]:
    """All encoders with their options and what they learnt: the content of `encoders.json`."""
    return {
        one.chain.name: {
            "column": one.chain.column,
            "encoders": [
                {"name": _name(encoder), "options": encoder.model_dump(), **_state(one.chain.table_file(place), table)}
                for place, (encoder, table) in enumerate(zip(one.chain.encoders, one.tables, strict=True))
            ],
        }
        for one in fitted
    }


def _state(file: str, table: pl.DataFrame | None) -> dict[str, Any]:
    if table is None:
        return {}
    return {"table": file} if file else {"numbers": table.row(0, named=True)}


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


def _check_chain(chain: tuple[Encoder, ...], column: str, dtype: pl.DataType, where: str) -> None:
    if not chain:
        raise InputError(f"{where}: no encoder; known: {', '.join(plugins.names(encoders))}.")
    if dtype.is_nested():
        raise InputError(f"{where}: column {column!r} holds {dtype}; one value an event is needed.")
    kind = "numbers" if dtype.is_numeric() else "times" if isinstance(dtype, pl.Datetime) else str(dtype)
    for encoder in chain:
        if encoder.takes not in ("anything", kind):
            text = f" In a text file, a column without a number in its first {SAMPLE_ROWS:,} rows is text."
            wrong = f"{where}: {_name(encoder)} takes {encoder.takes}, but gets {kind} (column {column!r})."
            raise InputError(wrong + (text if dtype == pl.String else ""))
        kind = "numbers" if encoder.kind == "continuous" else "ids, after which nothing can follow,"
    for encoder in chain[:-1]:
        if encoder.kind == "categorical":
            raise InputError(f"{where}: {_name(encoder)} gives ids and must be the last encoder.")


def _check_values(training: pl.LazyFrame, fitted: list[Fitted]) -> None:
    columns = list(dict.fromkeys(one.chain.column for one in fitted))
    counts = collect_all(
        [training.select(pl.len(), *(pl.col(name).count().alias(f"{name} known") for name in columns))]
    )[0]
    rows, *known = counts.row(0)
    for name, number in zip(columns, known, strict=True):
        if not number:
            features = ", ".join(one.chain.name for one in fitted if one.chain.column == name)
            raise InputError(
                f"Column {name!r} is empty in all {rows:,} training rows, so feature {features} has nothing to learn; "
                "mend the column or take the feature out of the dataset."
            )
    items = fitted[0].tables[0]
    if items is not None and not items.height:
        raise InputError(
            f"No item is seen often enough in the {rows:,} training rows: "
            f"features.item_id is {fitted[0].chain.encoders[0]!r}; lower min_count."
        )
