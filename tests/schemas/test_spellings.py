"""Older spellings of names in YAML and in stored schemas are read, and mean the same."""

from __future__ import annotations

import pytest

from preprocessing import encoders, steps
from schemas import plugins
from schemas.dataset import Dataset, Step
from schemas.features import FeatureColumn
from schemas.spellings import CURRENT, spelled_as_in

PARTS = {"name": "shop", "events": {"columns": {"user_id": "u", "item_id": "i", "timestamp": "t"}}}


@pytest.mark.parametrize("older", CURRENT)
def test_both_spellings_of_a_name_are_found(older: str) -> None:
    package = steps if older == "anonymise" else encoders
    assert plugins.find(package, older) is plugins.find(package, CURRENT[older])


def test_a_dataset_is_the_same_however_it_is_spelled() -> None:
    def dataset(bucket: str, scale: str, hide: str) -> Dataset:
        price = {"encode": bucket, "boundaries": [1]}
        features = {"price": price, "size": {"encode": ["log1p", {scale: {}}]}}
        return Dataset.model_validate({**PARTS, "steps": [{hide: {"columns": ["user_id"]}}], "features": features})

    older = dataset("bucketise", "standardise", "anonymise")
    assert older == dataset("bucketize", "standardize", "anonymize")
    assert [step.name for step in older.features["size"].encode] == ["log1p", "standardize"]


def test_a_stored_schema_is_read_in_the_current_spelling() -> None:
    column = {"name": "price", "kind": "continuous", "source": "price", "dtype": "float32"}
    stored = FeatureColumn.model_validate({**column, "transform": ["log1p", "standardise"]})
    assert stored.transform == ("log1p", "standardize")


def test_names_that_have_one_spelling_stay() -> None:
    assert spelled_as_in(["standardize"], "standardise") == "standardize"
    assert spelled_as_in(["anonymise"], "anonymize") == "anonymise"
    assert spelled_as_in(["standardize"], "standardised") == "standardised"
    assert Step.model_validate("drop_repeats").name == "drop_repeats"
