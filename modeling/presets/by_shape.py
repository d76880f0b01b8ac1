"""Settings that follow the shape of the data, where nobody has given them: a setting that is written anywhere always wins.

    tokens_per_step    0.26 events^(2/3), to the nearest power of two: 64 below 5,000 events, 512 at 100,000, 4,096 at 2,000,000
    learning_rate      0.003 to 512 events a step, with warmup_steps 0.1 where that is not given either; 0.001 above
    loss               full_softmax below 50,000 items, from there on sampled_softmax
    attention_dropout  histories: that of the body (`body.dropout`); sessions: 0

So steps of an epoch grow with the cube root of the events: few enough for a large shop, and enough for a small one to learn in.
Histories are read for weeks on end and overfit by attention; sessions of some events gain nothing by dropping its weights.
Measured by time to accuracy (LOG.md, "Settings by the size of the data", "Attention dropout").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from modeling.config import NEXT_ITEM, ModelConfig, TrainingConfig
from schemas.artifacts import Manifest

LEAST_TOKENS, MOST_TOKENS = 64, 65_536  # a step
TOKENS_PER_EVENTS = 0.26  # of events^(2/3): near what was set by hand for four datasets of 100,000 to 3,000,000 events
FEW_TOKENS, RATE_OF_FEW, RATE = 512, 3e-3, 1e-3  # with few events a run has few steps, which must go further
WARMUP = 0.1  # without it, a high rate leads the first steps onto a plateau
SAMPLED_FROM = 50_000  # items: all scores of 1,024 events cost .3 CPU seconds there, sampled ones a twentieth


@dataclass(frozen=True)
class Shape:
    """What the rules look at: events of the sessions, items of the vocabulary, and whether a session is a whole history."""

    num_events: int
    num_items: int
    histories: bool

    @classmethod
    def of(cls, sessions: Manifest) -> Shape:
        """The shape of prepared sessions: histories are those of the rule `history`, or tested by leaving their last out."""
        dataset = sessions.parameters["dataset"]
        histories = dataset["sessions"].get("rule") == "history" or dataset.get("split") == "leave_one_out"
        return cls(sessions.facts["events"], sessions.facts["items"], histories)


def settings_by_shape(
    model: ModelConfig, training: TrainingConfig, shape: Shape
) -> tuple[ModelConfig, TrainingConfig, dict[str, Any]]:
    """Settings and the shape of the data -> the settings to train with, and what was chosen by name.

    `settings_by_shape(ModelConfig(), TrainingConfig(), Shape(117_958, 1_670, histories=False))` chooses
    `{"training.tokens_per_step": 512, "training.learning_rate": 0.003, "training.warmup_steps": 0.1, "loss": "full_softmax",
    "body.attention_dropout": 0.0}`.
    """
    of_training, of_body = _of_training(training, shape), _of_body(model, shape)
    chosen = {f"training.{name}": value for name, value in of_training.items()}
    if NEXT_ITEM in model.heads and not {"name", "options"} & model.loss.model_fields_set:
        chosen["loss"] = "full_softmax" if shape.num_items < SAMPLED_FROM else "sampled_softmax"
        model = model.model_copy(update={"loss": model.loss.model_copy(update={"name": chosen["loss"]})})
    model = model.model_copy(update={"body": model.body.model_copy(update=of_body)})
    chosen |= {f"body.{name}": value for name, value in of_body.items()}
    return model, training.model_copy(update=of_training), chosen


def _of_training(training: TrainingConfig, shape: Shape) -> dict[str, Any]:
    given, chosen = training.model_fields_set, dict[str, Any]()
    if "tokens_per_step" not in given:
        chosen["tokens_per_step"] = tokens_per_step(shape.num_events)
    if "learning_rate" not in given:
        few = chosen.get("tokens_per_step", training.tokens_per_step) <= FEW_TOKENS
        chosen["learning_rate"] = RATE_OF_FEW if few else RATE
        if few and "warmup_steps" not in given:
            chosen["warmup_steps"] = WARMUP
    return chosen


def _of_body(model: ModelConfig, shape: Shape) -> dict[str, Any]:
    if "attention_dropout" in model.body.model_fields_set:
        return {}
    return {"attention_dropout": model.body.dropout if shape.histories else 0.0}


def tokens_per_step(num_events: int) -> int:
    """Events of a step for sessions of so many in all."""
    wanted = TOKENS_PER_EVENTS * max(num_events, 1) ** (2 / 3)
    return int(min(max(2 ** round(math.log2(wanted)), LEAST_TOKENS), MOST_TOKENS))


def describe(chosen: dict[str, Any], shape: Shape) -> str:
    """What was chosen, in one line."""
    listed = ", ".join(f"{name} {value}" for name, value in chosen.items())
    kind = "histories" if shape.histories else "sessions"
    return (
        f"Chosen by the shape of the data ({kind}, {shape.num_events:,} events, {shape.num_items:,} items): {listed}."
    )
