"""How what was given, a preset, what suits a dataset and the defaults become settings."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows import stages
from flows.settings.layers import pile, read_changes
from flows.settings.settings import Data, Settings, resolve
from modeling.config import BodyConfig, EvaluationConfig, LossConfig
from schemas.artifacts import Manifest
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema


def settings_of(*pairs: str, preset: str | None = None, **changes: Any) -> Settings:
    """What `--set PAIR ...` makes of the demo dataset, with its own defaults changed."""
    return resolve(Data(source="/tmp", changes=changes), preset, read_changes(list(pairs))[1])


def test_what_was_given_goes_over_the_preset_that_over_the_dataset_that_over_the_defaults() -> None:
    suits = {"defaults.body": {"dim": 8, "dropout": 0.4}, "defaults.training": {"epochs": 3, "patience": 5}}
    plain = settings_of(**suits)
    assert (plain.model.body.dim, plain.model.body.dropout, plain.training.epochs) == (8, 0.4, 3)
    assert plain.model.body.num_layers == BodyConfig().num_layers
    chosen = settings_of("body.dropout=0.7", preset="sasrec", **suits)
    assert (chosen.model.body.dim, chosen.model.body.dropout) == (50, 0.7)  # 50: modeling/presets/sasrec.yaml
    assert chosen.training.patience == 5
    assert chosen.preset == "sasrec" and plain.preset is None


def test_layers_are_merged_to_any_depth() -> None:
    suits = {"defaults.loss": {"name": "sampled_softmax", "negatives": {"count": 64, "source": "popularity"}}}
    negatives = settings_of("loss.negatives.count=512", **suits).model.loss.negatives
    assert (negatives.count, negatives.source) == (512, "popularity")
    assert settings_of("inputs.dims.price=3", **{"defaults.inputs": {"dims": {"brand": 5}}}).model.inputs.dims == {
        "brand": 5,
        "price": 3,
    }


def test_options_go_when_another_name_is_chosen_and_shared_settings_stay() -> None:
    lower = {"loss": {"name": "gbce", "calibration": 0.5, "negatives": {"count": 9}}, "body": {"dim": 8, "wheels": 4}}
    assert pile({"loss": "bce"}, lower)["loss"] == {"name": "bce", "negatives": {"count": 9}}
    assert pile({"loss": "gbce"}, lower)["loss"] == lower["loss"]
    assert pile({"body": {"num_layers": 1}}, lower)["body"] == {"dim": 8, "wheels": 4, "num_layers": 1}
    assert pile({"body": {"name": "sasrec"}}, lower)["body"]["wheels"] == 4, "the default's own name changes nothing"
    assert pile({"body": {"name": "gpt2"}}, lower)["body"] == {"dim": 8, "name": "gpt2"}
    heads = {"heads": {"next_item": {"bias": True}, "bought": {"at": "every", "weight": 2}}}
    assert pile({"heads": {"bought": "regression"}}, heads)["heads"] == {
        "next_item": {"bias": True},
        "bought": {"name": "regression", "weight": 2},
    }


def test_heads_join_those_below_and_false_removes_one() -> None:
    assert pile({"heads": {"bought": "binary"}})["heads"] == {"next_item": {}, "bought": {"name": "binary"}}
    assert pile({"heads": {"next_item": False}}, {"heads": {"bought": None}})["heads"] == {"bought": {}}
    assert pile({"heads": {"bought": {}}}, {"heads": {"bought": False}})["heads"] == {"next_item": {}, "bought": {}}


@pytest.mark.parametrize(
    ("pairs", "layer"),
    [
        (["body.num_layers=4"], {"body": {"num_layers": 4}}),
        (["loss=gbce"], {"loss": {"name": "gbce"}}),
        (["loss=gbce", "loss.calibration=0.5"], {"loss": {"name": "gbce", "calibration": 0.5}}),
        (["loss.calibration=0.5", "loss.name=gbce"], {"loss": {"name": "gbce", "calibration": 0.5}}),
        (["loss={name: gbce, calibration: 0.5}"], {"loss": {"name": "gbce", "calibration": 0.5}}),
        (["loss.options.calibration=0.5"], {"loss": {"calibration": 0.5}}),
        (["loss.negatives.count=512"], {"loss": {"negatives": {"count": 512}}}),
        (["heads.next_item.bias=true"], {"heads": {"next_item": {"bias": True}}}),
        (["heads.bought=binary", "heads.bought.weight=2"], {"heads": {"bought": {"name": "binary", "weight": 2}}}),
        (["heads.next_item=false"], {"heads": {"next_item": False}}),
        (["inputs.features=[]"], {"inputs": {"features": []}}),
        (["training.half_life_days=null"], {"training": {"half_life_days": None}}),
        (["training={epochs: 2}", "training.seed=1"], {"training": {"epochs": 2, "seed": 1}}),
    ],
)
def test_set_takes_keys_of_any_depth_and_whole_groups(pairs: list[str], layer: dict[str, Any]) -> None:
    assert read_changes(pairs) == ({}, layer)


def test_changes_to_the_dataset_are_told_apart() -> None:
    dataset, layer = read_changes(["dataset.sessions.gap_minutes=20", "body.dim=128"])
    assert dataset == {"sessions.gap_minutes": 20}
    assert layer == {"body": {"dim": 128}}


def test_python_may_give_settings_as_objects() -> None:
    """What an object leaves to its defaults is not given."""
    given = {"body": BodyConfig(num_layers=3), "loss": LossConfig.model_validate({"name": "gbce", "calibration": 0.5})}
    settings = resolve(Data(source="/tmp"), "sasrec", given)
    assert (settings.model.body.num_layers, settings.model.body.dim) == (3, 50)
    assert settings.model.loss.options == {"calibration": 0.5}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("training.epoch=3", ["training.epoch", "Did you mean 'training.epochs'"]),
        ("model.dim=3", ["Unknown key 'model.dim'", "Did you mean 'body.dim'"]),
        ("body.nmu_layers=3", ["key of body sasrec", "Did you mean 'num_layers'"]),
        ("loss.calibration=0.5", ["key of loss full_softmax 'calibration'", "label_smoothing"]),
        ("loss={name: gbce, calibratoin: 0.5}", ["key of loss gbce", "Did you mean 'calibration'"]),
        ("loss={name: gbce, calibration: 3}", ["loss gbce: calibration", "got 3"]),
        ("loss.negatives.cuont=3", ["Did you mean 'loss.negatives.count'"]),
        ("loss=gbcee", ["Unknown loss 'gbcee'. Did you mean 'gbce'"]),
        ("loss=3", ["loss", "got 3"]),
        ("heads=3", ["heads", "got 3"]),
        ("heads.next_item.bais=true", ["key of head next_item", "Did you mean 'bias'"]),
        ("heads.next_item=false", ["heads", "at least 1"]),
        ("body.num_heads=3", ["num_heads 3 does not divide dim 64"]),
        ("objective=causle", ["Unknown objective 'causle'. Did you mean 'causal'"]),
        ("evaluation.diversity=brnd", ["evaluation.diversity 'brnd'. Did you mean 'brand'"]),
        ("evaluation.diversity=item_id", ["Unknown evaluation.diversity 'item_id'"]),
        ("evaluation.split.fold=3", ["evaluation.split.fold", "Did you mean 'evaluation.split.folds'"]),
        ("evaluation.split.rule=list", ["rule list needs path"]),
        ("evaluation.split.until=yesterday", ["evaluation.split.until", "yesterday"]),
        ("training.validation=day", ["training.validation", "'days' or 'sample'"]),
        ("training.validation_days=0", ["training.validation_days", "greater than or equal to 1"]),
        ("training.seed=4294967296", ["training.seed", "less than 4294967296", "got 4294967296"]),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_runs_with_what_would_do(pair: str, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        settings_of(pair)
    for word in words:
        assert word in str(error.value), error.value


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("body.dim 128", "Did you mean 'body.dim=128'?"),
        ("body.dim:128", "Did you mean 'body.dim=128'?"),
        ("body.dim", "Did you mean body.dim=VALUE"),
        ("bdy.dim", "Did you mean body.dim=VALUE"),
        ("dim", "Did you mean body.dim=VALUE"),
        ("epochs", "Did you mean training.epochs=VALUE"),
        ("trainin", "Did you mean training=VALUE"),
        ("loss", "Did you mean loss=VALUE"),
        ("=3", "A key begins with one of inputs, body, "),
        ("qqqq", "A key begins with one of"),
        ("model.dmi=3", "Did you mean 'body.dim'"),
        ("qqqq=3", "Known: "),
    ],
)
def test_a_pair_that_is_none_is_told_the_nearest_keys_and_not_all(pair: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        read_changes([pair])
    assert words in str(error.value) and len(str(error.value)) < 300, error.value


def test_what_is_unfit_alone_may_fit_on_top_of_a_preset_or_a_dataset() -> None:
    with pytest.raises(InputError, match="num_heads 2 does not divide dim 25"):
        settings_of("body.dim=25")
    assert settings_of("body.dim=25", preset="sasrec").model.body.num_heads == 1


def test_unknown_names_are_refused_wherever_they_stand() -> None:
    with pytest.raises(ValidationError):
        Data.model_validate({"datasett": "demo"})
    with pytest.raises(InputError, match="group in the defaults of demo 'mdel'"):
        settings_of(**{"defaults.mdel": {"dim": 3}})
    with pytest.raises(InputError, match=r"Unknown preset 'sasrecc'\. Did you mean 'sasrec'"):
        settings_of(preset="sasrecc")


def test_the_environment_says_where_things_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OVERNIGHT_ROOT", str(tmp_path / "there"))
    monkeypatch.setenv("OVERNIGHT_SOURCE", str(tmp_path))
    settings = resolve(Data())
    assert settings.artifacts.root == tmp_path / "there"
    assert settings.dataset.source == str(tmp_path)


@pytest.mark.parametrize(
    ("preset", "given", "said"),
    [
        (
            "{body: xlnet, objective: permuted}",
            {"query_time": True},
            "query_time does not go with the objective permuted",
        ),
        (
            "{objective: {name: causal, first: any}, inputs: {past_events: 8}}",
            {"past_events": 0},
            "objective.first any",
        ),
    ],
)
def test_what_a_preset_does_not_go_with_is_refused_before_anything_is_prepared(
    preset: str, given: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "presets").mkdir()
    about = 'title: Mine, paper: "arXiv:2601.00001", deviates: [nothing]'
    (tmp_path / "presets" / "my_preset.yaml").write_text(f"{{{about}, {preset[1:]}\n")
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(tmp_path))
    resolve(Data(source="/tmp"), "my_preset")
    with pytest.raises(InputError, match=said):
        resolve(Data(source="/tmp"), "my_preset", {"inputs": given})


def test_the_usual_models_are_known_to_be_good_without_torch() -> None:
    """A night with nothing to do must not wait for it."""
    script = """
import json, sys
from flows.settings.settings import Data, resolve
def torch_after(given, preset=None):
    resolve(Data(source="/tmp"), preset, given)
    return "torch" in sys.modules
sizes = {"body": {"dim": 32, "dropout": 0.3}}
print(json.dumps([torch_after(sizes), torch_after(sizes, "gsasrec"), torch_after({"loss": "gbce"})]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, False, True]


def test_a_feature_of_many_values_is_no_diversity_and_that_is_said_before_training(tmp_path: Path) -> None:
    columns = [
        FeatureColumn(name=name, kind="categorical", source=name, dtype="int32", cardinality=9, many=name == "tags")
        for name in ("item_id", "tags", "brand")
    ]
    sessions = Manifest(kind="sessions", id="1", root=str(tmp_path), created=datetime.now(UTC))
    sessions.folder.mkdir(parents=True)
    FeatureSchema(dataset="demo", max_length=9, split="day", columns=tuple(columns)).write(
        sessions.folder / "schema.json"
    )
    settings = replace(settings_of(), evaluation=EvaluationConfig(diversity="tags"))
    with pytest.raises(InputError, match=r"evaluation.diversity 'tags'.*Known: brand\."):
        stages.train(settings, sessions, lambda line: None)
