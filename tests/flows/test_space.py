"""What a search tries: every step from every beginning can be trained, and changes what it says and nothing else."""

from __future__ import annotations

import random
from typing import Any

import pytest

from flows.settings.layers import read_changes
from flows.settings.settings import Data, Settings, resolve
from flows.settings.space import LOSS, OF_ALL, SAME, Beginning, near, nested
from modeling.presets.by_shape import Shape, settings_by_shape

SESSIONS, HISTORIES = Shape(100_000, 2_000, 20_000, False), Shape(100_000, 9_000, 20_000, True)
DATA = Data(dataset="demo", source="/tmp")


def begin(preset: str | None, shape: Shape, *given: str) -> Beginning:
    layer = read_changes(list(given))[1]
    made = resolve(DATA, preset, layer)
    return Beginning.of(made.model, made.training, shape, layer)


def settled(made: Settings, shape: Shape) -> dict[str, Any]:
    """All settings that a model is trained with, by dotted key; options stand next to the rest."""
    model, training, _ = settings_by_shape(made.model, made.training, shape)
    flat: dict[str, Any] = {}

    def flatten(prefix: str, given: Any) -> None:
        if isinstance(given, dict) and given:
            for key, value in given.items():
                flatten(prefix if key == "options" else f"{prefix}.{key}".strip("."), value)
        elif given != {}:
            flat[prefix] = given

    flatten("", model.model_dump() | {"training": training.model_dump()})
    return flat


@pytest.mark.parametrize("shape", [SESSIONS, HISTORIES])
@pytest.mark.parametrize("preset", [None, "bert4rec", "gru4rec", "t4rec_xlnet_mlm"])
def test_each_step_changes_one_setting_and_what_follows_the_data_stays(preset: str | None, shape: Shape) -> None:
    start = begin(preset, shape)
    assert start.changes(start.neutral()) == {}
    assert start.layer({}) == {}
    before = settled(resolve(DATA, preset), shape)
    for setting in start.settings():
        for step in setting.steps or (0.25, 1.7):
            changes = start.changes(start.neutral() | {setting.key: step})
            after = settled(resolve(DATA, preset, start.layer(changes)), shape)
            if not changes:
                continue
            values = {f"{key}.name" if key == LOSS.key else key: value for key, value in changes.items()}
            assert {key: after[key] for key in values} == values
            moved = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
            options = {key for key in moved if setting is LOSS and key not in after}  # of the loss that is left behind
            assert moved == values.keys() | options, (setting.key, step)


def test_values_stay_within_what_they_may_be() -> None:
    start = begin(None, SESSIONS, "body.num_heads=3", "body.dim=9")
    narrow = Beginning(start.model, start.training, start.settled, frozenset())
    assert narrow.changes({"body.dim": 0.5})["body.dim"] in (3, 6)
    assert narrow.changes({"body.num_layers": -1, "body.dropout": -0.2}) == {"body.num_layers": 1, "body.dropout": 0.0}
    assert narrow.changes({"training.learning_rate": 1.23456})["training.learning_rate"] == 0.0037
    wide = begin("gsasrec", HISTORIES)
    assert wide.changes({"body.dropout": 0.3}) == {"body.dropout": 0.7, "body.attention_dropout": 0.7}


def test_what_a_person_gave_is_not_searched() -> None:
    keys = {setting.key for setting in begin(None, SESSIONS).settings("gbce")}
    assert {setting.key for setting in OF_ALL} <= keys and "loss.negatives.count" in keys
    given = begin("gru4rec", SESSIONS, "loss.negatives.count=9", "body.dim=8", "training.learning_rate=0.01")
    left = {setting.key for setting in given.settings("gbce")}
    assert not left & {"body.dim", "training.learning_rate", "loss", "loss.negatives.count"}
    assert "body.cell" in left and "body.cell" not in keys
    named = {setting.key for setting in begin(None, SESSIONS, "loss=gbce").settings()}
    assert "loss" not in named and "loss.negatives.count" in named


def test_options_belong_to_the_loss_that_is_tried() -> None:
    start = begin(None, HISTORIES)  # full_softmax with label smoothing .1
    assert start.changes({"loss": "gbce", "loss.label_smoothing": 0.2}) == {"loss": "gbce"}
    assert start.changes({"loss": "sampled_softmax", "loss.label_smoothing": 0.1}) == {
        "loss": "sampled_softmax",
        "loss.label_smoothing": 0.1,
    }
    assert start.changes({"loss": "sampled_softmax", "loss.label_smoothing": SAME}) == {"loss": "sampled_softmax"}


def test_near_is_one_or_two_steps_away() -> None:
    space, rng = begin(None, SESSIONS).settings(), random.Random(3)
    here = {setting.key: setting.neutral for setting in space}
    moved = [{key for key, step in near(space, here, rng).items() if step != here[key]} for _ in range(50)]
    assert {len(keys) for keys in moved} == {1, 2} and set().union(*moved) == here.keys()
    assert near([], {}, rng) == {}


def test_dotted_keys_are_layers() -> None:
    assert nested("loss", "gbce") == {"loss": {"name": "gbce"}}
    assert nested("loss.negatives.count", 3) == {"loss": {"negatives": {"count": 3}}}
