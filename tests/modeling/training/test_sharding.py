"""What a table of item vectors that is divided over devices does not go with."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.config import ModelConfig, TrainingConfig
from modeling.shards import Shard
from modeling.training.sharding import check_shards
from schemas.errors import InputError

DIVIDED = {"devices": 2, "shard_items": True}


@pytest.mark.parametrize(
    ("model", "training", "words"),
    [
        ({}, {"devices": 1}, "training.devices is 1"),
        ({"inputs": {"item_tower": "sum"}}, {}, "inputs.item_tower"),
        ({"inputs": {"pretrained": {"path": "v.npy"}}}, {}, "inputs.pretrained"),
        ({"heads": {"next_item": {"table": "separate"}}}, {}, "heads.next_item.table"),
        ({"objective": "replaced_token", "body": "bert"}, {}, "replaced_token"),
        ({"loss": {"name": "full_softmax", "label_smoothing": 0.1}}, {}, "label_smoothing"),
    ],
)
def test_what_does_not_go_together_is_refused(model: dict[str, Any], training: dict[str, Any], words: str) -> None:
    settings = ModelConfig.model_validate(model)
    with pytest.raises(InputError, match=words):
        check_shards(settings, TrainingConfig.model_validate(DIVIDED | training))
    check_shards(settings, TrainingConfig.model_validate(training))


@pytest.mark.parametrize("loss", ["full_softmax", {"name": "sampled_softmax", "label_smoothing": 0.1}, "gbce"])
def test_every_other_loss_goes_with_it(loss: Any) -> None:
    check_shards(ModelConfig.model_validate({"loss": loss}), TrainingConfig.model_validate(DIVIDED))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_the_table(count: int) -> None:
    shards = [Shard(50, rank, count) for rank in range(count)]
    assert [row for shard in shards for row in range(shard.first, shard.first + shard.num_rows)] == list(range(50))
    assert max(shard.num_rows for shard in shards) == shards[0].most_rows
