"""What encoded columns mean, for those who read them: `schema.json` for modeling, `encoders.json` for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from preprocessing.encoders import name_of
from preprocessing.encoders.category import Category
from preprocessing.features.feature import Feature
from preprocessing.features.state import FeatureState
from schemas.dataset import Dataset
from schemas.features import EncoderUsed, FeatureColumn, FeatureSchema, LabelColumn


def feature_schema(dataset: Dataset, features: Sequence[Feature], state: FeatureState) -> FeatureSchema:
    """Compiled features and the state before the test day -> the schema of the columns they give, `item_id` first.

    Cardinalities are those of the state: ids from there on belong to values that training has not seen.
    """
    labels = tuple(LabelColumn(name=label.column, per=label.per, source=label.column) for label in dataset.labels)
    return FeatureSchema(
        dataset=dataset.name,
        max_length=dataset.sessions.max_length,
        time_zone=dataset.time_zone,
        events_time_zone=dataset.events.time_zone,
        split=dataset.split,
        columns=tuple(_column(feature, state) for feature in features),
        labels=labels,
    )


def _column(feature: Feature, state: FeatureState) -> FeatureColumn:
    encoder, name = feature.encoders[-1], feature.state_name(len(feature.encoders) - 1)
    mean, std = encoder.scale(state.get(name))
    return FeatureColumn(
        name=feature.name,
        kind=feature.kind,
        source=feature.column,
        dtype="int32" if feature.kind == "categorical" else "float32",
        cardinality=encoder.cardinality(state.get(name)),
        vocabulary=f"vocabularies/{name}.parquet" if isinstance(encoder, Category) else None,
        per_item=feature.per_item,
        per=feature.per,
        many=feature.many,
        transform=tuple(name_of(encoder) for encoder in feature.encoders),
        encoders=tuple(
            EncoderUsed(
                name=name_of(encoder),
                options=encoder.model_dump(mode="json"),
                fitted=encoder.fitted_numbers(state.get(feature.state_name(place))),
            )
            for place, encoder in enumerate(feature.encoders)
        ),
        mean=mean,
        std=std,
    )


def describe(features: Sequence[Feature]) -> dict[str, Any]:
    """All encoders with their options and the name of their state: the content of `encoders.json`.

    {"price": {"column": "price", "encoders": [{"name": "standardize", "options": {}, "state": "price.0"}]}}
    """
    return {
        feature.name: {
            "column": feature.column,
            "encoders": [
                {"name": name_of(encoder), "options": encoder.model_dump(mode="json")}
                | ({"state": name} if (name := feature.state_name(place)) else {})
                for place, encoder in enumerate(feature.encoders)
            ],
        }
        for feature in features
    }
