"""A dataset's features compiled: their encoders built and checked against the columns, before any row is read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import polars as pl

from preprocessing import encoders
from preprocessing.encoders import Encoder, name_of
from preprocessing.encoders.category import Category
from preprocessing.features.feature import Feature
from schemas import plugins
from schemas.columns import ITEM_ID
from schemas.dataset import Dataset
from schemas.dataset import Feature as DeclaredFeature
from schemas.errors import InputError, parse, unknown

KINDS = {pl.Datetime: "times", pl.Date: "dates", pl.String: "text"}


def compile_features(dataset: Dataset, columns: pl.Schema) -> list[Feature]:
    """The dataset's features, `item_id` first, for events with these columns.

    Raises:
        InputError: for encoders, options and columns that do not exist, and encoders that do not fit their column, each
            other, or the item ids.
    """
    declared = {ITEM_ID: DeclaredFeature.model_validate("category"), **dataset.features}
    features = [_compile(name, feature, dataset, columns) for name, feature in declared.items()]
    _check_items(features[0])
    _check_shared(features)
    return features


def _compile(name: str, declared: DeclaredFeature, dataset: Dataset, columns: pl.Schema) -> Feature:
    column, where = declared.column or name, f"feature {name}"
    if column not in columns:
        raise InputError(f"{where}: {unknown('column', column, columns)} Steps such as join_items add columns.")
    chain = tuple(_build_encoder(entry.name, entry.options, dataset, where) for entry in declared.encode)
    _check_chain(chain, column, columns, where)
    dtype = columns[column]
    joined = dataset.items is not None and column in dataset.items.columns
    return Feature(
        name=name,
        column=column,
        encoders=chain,
        per_item=column == ITEM_ID or (joined and column not in dataset.events.columns),
        per=declared.per,
        many=isinstance(dtype, pl.List),
        floats=dtype.inner.is_float() if isinstance(dtype, pl.List) else dtype.is_float(),
    )


def _build_encoder(name: str, options: dict[str, Any], dataset: Dataset, where: str) -> Encoder:
    try:
        encoder_class = plugins.find(sys.modules[encoders.__name__], name, dataset.plugins)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if "time_zone" in encoder_class.model_fields:
        options = {"time_zone": dataset.time_zone, **options}
    encoder: Encoder = parse(encoder_class, options, f"{where}: {name}")
    return encoder


def _check_chain(chain: tuple[Encoder, ...], column: str, columns: pl.Schema, where: str) -> None:
    """Each encoder must take what comes to it: the column first, then what the encoder before it gives."""
    dtype = columns[column]
    if not chain:
        raise InputError(f"{where}: no encoder; known: {', '.join(plugins.names(encoders))}.")
    plain_lists = isinstance(dtype, pl.List) and not dtype.inner.is_nested()
    if dtype.is_nested() and not (plain_lists and [name_of(encoder) for encoder in chain] == ["category"]):
        raise InputError(
            f"{where}: column {column!r} holds {dtype}; only category, alone, takes lists, of plain values."
        )
    if dtype in (pl.Duration, pl.Time, pl.Object):
        raise InputError(
            f"{where}: column {column!r} holds {dtype}, which no encoder takes; write it as a number, such as seconds, or as "
            "text where the file is made."
        )
    kind = "numbers" if dtype.is_numeric() else KINDS.get(dtype.base_type(), str(dtype))
    for encoder in chain:
        try:
            encoder.check(column, columns)
        except InputError as error:
            raise InputError(f"{where}: {name_of(encoder)}: {error}") from None
        if encoder.takes not in ("anything", kind):
            hint = (
                f" Declare its type where it is mapped (`types: {{{column}: float}}`), or make a column of numbers by the step "
                f"derive, such as `number: TRY_CAST({column} AS DOUBLE)`."
            )
            wrong = f"{where}: {name_of(encoder)} takes {encoder.takes}, but gets {kind} (column {column!r})."
            raise InputError(wrong + (hint if dtype == pl.String and encoder.takes == "numbers" else ""))
        kind = "numbers" if encoder.kind == "continuous" else "ids, after which nothing can follow,"
    for encoder in chain[:-1]:
        if encoder.kind == "categorical":
            raise InputError(f"{where}: {name_of(encoder)} gives ids and must be the last encoder.")


def _check_items(items: Feature) -> None:
    """One id an item, made from the item alone."""
    encoder = items.encoders[-1]
    if items.column != ITEM_ID or items.many or not isinstance(encoder, Category):
        raise InputError("feature item_id: it must be made from item_id by category.")
    if encoder.unknown_buckets > 1:
        raise InputError(
            "feature item_id: unknown_buckets would give several items one id, and a model that predicts it names none of "
            "them. Leave it out; rare items share the id of unknown ones."
        )


def _check_shared(features: Sequence[Feature]) -> None:
    """Features that share a vocabulary must agree on it."""
    shared: dict[str, Feature] = {}
    for feature in features:
        encoder = feature.encoders[-1]
        if isinstance(encoder, Category) and encoder.vocabulary:
            first = shared.setdefault(encoder.vocabulary, feature)
            if encoder != first.encoders[-1] or len(feature.encoders) > 1:
                raise InputError(
                    f"feature {feature.name}: it shares the vocabulary {encoder.vocabulary!r} with {first.name}, "
                    "so both must have the same options and no other encoder."
                )
            if encoder.vocabulary in {other.name for other in features if other is not first}:
                raise InputError(f"feature {feature.name}: the vocabulary needs a name that no other feature has.")
