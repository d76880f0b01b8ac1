"""Presets: each reads, says where it comes from and where it deviates, and is a model that trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modeling.config import ModelConfig
from modeling.model import SequenceModel
from modeling.presets import FOLDER, known_presets, read_preset
from schemas.errors import InputError
from tests.conftest import random_sessions, schema_of

NAMES = known_presets()
DEPENDS_ON_DATA = {
    "tokens_per_step",
    "half_life_days",
    "validation_sessions",
    "evaluations",
    "threads",
    "order",
    "seed",
}


def test_the_published_models_are_there() -> None:
    assert {"sasrec", "gsasrec", "esasrec", "bert4rec", "hstu", "gru4rec", "t4rec_xlnet_mlm", "t4rec_gpt2_clm"} <= {
        *NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_it_is_and_leaves_to_the_dataset_what_depends_on_it(name: str) -> None:
    preset = read_preset(name)
    assert preset.title and all(line.endswith(".") for line in preset.deviates)
    assert not DEPENDS_ON_DATA & preset.layer["training"].keys()
    assert not {"features", "dims", "time", "pretrained"} & preset.layer["inputs"].keys()
    assert not {"title", "paper", "deviates"} & preset.layer.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_model_that_trains_at_its_published_size(name: str) -> None:
    groups = {group: value for group, value in read_preset(name).layer.items() if group in ModelConfig.model_fields}
    torch.manual_seed(3)
    model = SequenceModel(ModelConfig.model_validate(groups), schema_of(50))
    batch = model.training_batch(random_sessions(6, 50), torch.Generator().manual_seed(1))
    loss = model(batch)
    loss.backward()
    assert loss.isfinite()
    weights = dict(model.body.named_parameters())
    still = [key for key, weight in weights.items() if weight.requires_grad and weight.grad is None]
    assert not still, still


def test_what_a_preset_does_not_set_stays_open() -> None:
    layer = read_preset("esasrec").layer
    assert layer["body"] == {
        "name": "ligr", "options": {"ff_multiple": 4}, "dim": 64, "num_layers": 2, "num_heads": 1, "dropout": 0.1,
            "attention_dropout": 0.1,
    }  # fmt: skip
    assert "heads" not in layer and "epochs" not in layer["training"]


def test_unknown_presets_and_keys_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"Unknown preset 'esasrek'\. Did you mean 'esasrec'"):
        read_preset("esasrek")
    text = (FOLDER / "sasrec.yaml").read_text()
    (tmp_path / "presets").mkdir()
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(tmp_path))
    for wrong, words in (("evaluation: {}\n", "evaluation"), ("boddy: sasrec\n", "Did you mean 'body'")):
        (tmp_path / "presets" / "mine.yaml").write_text(text + wrong)
        with pytest.raises(InputError, match=words):
            read_preset("mine")
