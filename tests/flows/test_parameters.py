"""How what was given, what suits a dataset and the defaults become settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.parameters import Data, read_changes, resolve
from modeling.config import ModelConfig, TrainingConfig
from schemas.errors import InputError


def test_the_dataset_fills_what_was_not_given(tmp_path: Path) -> None:
    settings = resolve(Data(dataset="beauty", source=str(tmp_path)), ModelConfig(dim=32))
    assert settings.model.dim == 32
    assert settings.model.dropout == 0.4  # schemas/datasets/beauty.yaml
    assert settings.training.order == "random"
    assert settings.model.num_layers == ModelConfig().num_layers


def test_changes_are_typed_and_told_apart() -> None:
    dataset, groups = read_changes(["dataset.sessions.gap_minutes=20", "model.dim=128", "training.half_life_days=null"])
    assert dataset == {"sessions.gap_minutes": 20}
    assert groups == {"model": ModelConfig(dim=128), "training": TrainingConfig(half_life_days=None)}


def test_unknown_names_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Data.model_validate({"datasett": "demo"})
    with pytest.raises(InputError, match=r"Did you mean 'training\.epochs'"):
        read_changes(["training.epoch=3"])
    with pytest.raises(InputError, match="defaults"):
        resolve(Data(dataset="demo", source=str(tmp_path), changes={"defaults.mdel": {"dim": 3}}))


def test_the_environment_says_where_things_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OVERNIGHT_ROOT", str(tmp_path / "there"))
    monkeypatch.setenv("OVERNIGHT_SOURCE", str(tmp_path))
    settings = resolve(Data())
    assert settings.artifacts.root == tmp_path / "there"
    assert settings.dataset.source == str(tmp_path)


def test_the_run_form_shows_titles_and_descriptions() -> None:
    from flows.retrain import retrain

    schema = retrain.parameters.model_dump()
    assert set(schema["properties"]) == {"data", "model", "training", "evaluation", "promotion"}
    for definition in schema["definitions"].values():
        if definition.get("type") == "object":
            assert definition["additionalProperties"] is False
            assert all(field.get("title") and field.get("description") for field in definition["properties"].values())
    assert all("description" in field or "$ref" in field for field in schema["properties"].values())
