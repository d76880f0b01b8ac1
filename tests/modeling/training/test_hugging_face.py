"""transformers.Trainer in the place of our loop: the same bits, its callbacks, and what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from modeling.config import ModelConfig, TrainingConfig
from modeling.training import optimizer
from modeling.training.fit import fit
from schemas.errors import InputError
from tests.conftest import model_of, random_sessions, schema_of, split_of

SAMPLED = {"name": "sampled_softmax", "negatives": {"count": 8}}


def run(trainer: str, folder: Path, model: dict[str, Any], **training: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = {"epochs": 4, "tokens_per_step": 128, "evaluations": 8, "patience": 2, "threads": 1, "trainer": trainer}
    config = TrainingConfig.model_validate(settings | training)
    sessions = random_sessions(200, 50)
    model_config = ModelConfig.model_validate({"body": {"dim": 16, "dropout": 0.3}} | model)
    fitted, facts = fit(schema_of(50), split_of(sessions, sessions), model_config, config, folder, lambda line: None)
    return fitted.state_dict(), facts


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({"heads": {"next_item": {"bias": True}}}, {"order": "random"}),
        ({"loss": SAMPLED}, {"order": "random", "learning_rate": 0.05}),  # stops early
        (
            {"inputs": {"swap_noise": 0.2}},
            {"weight_decay": 0.1, "max_grad_norm": 0.5, "schedule": "cosine", "warmup_steps": 0.2},
        ),
    ],
    ids=str,
)
def test_it_has_the_bits_of_our_loop(model: dict[str, Any], training: dict[str, Any], tmp_path: Path) -> None:
    ours, facts = run("own", tmp_path / "own", model, **training)
    theirs, about = run("hugging_face", tmp_path / "theirs", model, **training)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert about["history"] == facts["history"]
    assert (about["steps"], about["best_step"]) == (facts["steps"], facts["best_step"])
    if "learning_rate" in training:
        assert facts["steps"] < facts["planned_steps"]


def test_sparse_gradients_are_not_clipped_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(optimizer.SPARSE_FROM, "cpu", 1)
    with pytest.raises(InputError, match="cannot clip the sparse gradients"):
        run("hugging_face", tmp_path, {"loss": SAMPLED}, max_grad_norm=1.0)
    run("own", tmp_path, {"loss": SAMPLED}, max_grad_norm=1.0)


class Listener(TrainerCallback):
    """Somebody else's callback."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.metrics: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        self.metrics.append(metrics)


def test_in_a_script_it_is_a_trainer_like_any_other(tmp_path: Path) -> None:
    """As docs/training.md shows, with TrainingArguments and callbacks of one's own."""
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    sessions, listener = random_sessions(100, 50), Listener()
    given = {
        "model": model_of("sasrec"),
        "sessions": sessions,
        "validation": split_of(sessions, sessions).validation,
        "config": TrainingConfig(epochs=2, threads=1, tokens_per_step=64),
        "output_dir": str(tmp_path),
        "callbacks": [listener],
    }
    exec(code, given)
    assert len(listener.losses) == len(given["schedule"]) // 5 <= len(listener.metrics)
    assert {"eval_ndcg@20", "eval_recall@20"} <= listener.metrics[0].keys()
