"""Training on a GPU: captured, compiled, interrupted, with heads on labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.ranking import top_k
from modeling.scoring import ModelScorer
from modeling.sessions import Sessions
from modeling.splits import Cases, Split, hide_last
from modeling.training import device as on_device
from modeling.training.fit import fit
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.features import FeatureColumn, FeatureSchema, LabelColumn

NUM_ITEMS = 300
BODIES = [
    ("sasrec", "causal", "sampled_softmax"), ("hstu", "causal", "full_softmax"), ("bert4rec", "masked", "sampled_softmax"),
    ("ligr", "causal", "gbce"), ("gpt2", "causal", "full_softmax"), ("llama", "causal", "bce"),
    ("modernbert", "masked", "full_softmax"), ("sasrec", "replaced_token", "sampled_softmax"), ("bst", "causal", "bpr_max"),
    ("gru4rec", "causal", "top1_max"), ("xlnet", "permuted", "full_softmax"),
]  # fmt: skip


def made_up(count: int = 600, seed: int = 0) -> tuple[FeatureSchema, Sessions]:
    """Sessions of 2 to 12 events with a category and a price."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 13, (count,), generator=generator)
    item_E = torch.randint(
        FIRST_ID, FIRST_ID + NUM_ITEMS, (int(lengths.sum()),), generator=generator, dtype=torch.int32
    )
    number = {"kind": "categorical", "dtype": "int32"}
    columns = (
        FeatureColumn(name=ITEM_ID, source=ITEM_ID, cardinality=NUM_ITEMS + FIRST_ID, **number),
        FeatureColumn(name="type", source="type", cardinality=FIRST_ID + 5, **number),
        FeatureColumn(name="price", kind="continuous", source="price", dtype="float32"),
    )
    events = {ITEM_ID: item_E, "type": item_E % 5 + FIRST_ID, "price": (item_E % 7).float() / 7}
    sessions = Sessions(events, lengths.cumsum(0) - lengths, lengths, torch.arange(count) * 1_000_000)
    return FeatureSchema(dataset="made_up", max_length=20, split="day", columns=columns), sessions


def fitted(folder: Path, groups: dict[str, Any], **training: Any) -> tuple[list[float], dict[str, Any], list[str]]:
    """The losses of a short run, its facts and what was said."""
    schema, sessions = made_up()
    cases, lines = hide_last(sessions), list[str]()
    split = Split(sessions, Cases(cases.history, cases.target), cases, sessions)
    config = TrainingConfig(epochs=3, tokens_per_step=512, evaluations=2, patience=10, order="random", **training)
    model = ModelConfig.model_validate(groups)
    _, facts = fit(schema, split, model, config, folder, lambda line: lines.append(str(line)))
    return [row["loss"] for row in facts["history"]], facts, lines


def groups_of(body: str, objective: str, loss: str) -> dict[str, Any]:
    """A small model with dropout and without attention that drops anything."""
    negatives = {} if loss == "full_softmax" else {"negatives": {"count": 32}}
    return {
        "body": {"name": body, "dim": 32, "num_layers": 2, "num_heads": 2, "dropout": 0.2, "attention_dropout": 0.0},
        "objective": objective,
        "loss": {"name": loss} | negatives,
    }


def body(name: str, objective: str, loss: str, folder: Path) -> Any:
    """Captured steps have the losses of steps done one by one; nothing is given up on the way."""
    groups, curves = groups_of(name, objective, loss), []
    for capture in ("off", "auto"):
        losses, _, lines = fitted(folder / capture, groups, capture=capture)
        gave_up = [line for line in lines if "goes on without" in line]
        assert not gave_up, gave_up
        curves.append(losses)
    apart = max(abs(one - two) / abs(one) for one, two in zip(*curves, strict=True))
    assert apart < 0.02, curves
    assert curves[1][-1] < curves[1][0] * 1.02, curves
    return {"apart": apart, "losses": curves[1]}


def compiled(name: str, objective: str, loss: str, folder: Path) -> Any:
    """Compiled steps draw other numbers and learn as well."""
    before, on_device.COMPILED_FROM = on_device.COMPILED_FROM, 0
    try:
        losses, _, lines = fitted(folder / "compiled", groups_of(name, objective, loss))
    finally:
        on_device.COMPILED_FROM = before
    gave_up = [line for line in lines if "goes on without" in line]
    assert not gave_up, gave_up
    expected, _, _ = fitted(folder / "plain", groups_of(name, objective, loss), compile="off")
    assert abs(losses[-1] - expected[-1]) < 0.05 * expected[-1], (losses, expected)
    return {"losses": losses, "expected": expected}


def what_reads_is_found_out(folder: Path) -> Any:
    """A step that asks the device for a value is done step by step, and that is said."""
    plain = on_device.Steps._loss_of_step

    def reading(steps: on_device.Steps) -> torch.Tensor:
        loss = plain(steps)
        return loss + 0.0 * float(loss)

    on_device.Steps._loss_of_step = reading  # type: ignore[method-assign]
    try:
        losses, _, lines = fitted(folder, groups_of("sasrec", "causal", "full_softmax"), compile="off")
    finally:
        on_device.Steps._loss_of_step = plain  # type: ignore[method-assign]
    assert sum("not captured" in line for line in lines) == 1, lines
    return {"said": [line for line in lines if "not captured" in line], "losses": losses}


def interrupted(folder: Path) -> Any:
    """A run that is stopped in the middle goes on from its checkpoint, captured again."""
    schema, sessions = made_up()
    cases = hide_last(sessions)
    split = Split(sessions, Cases(cases.history, cases.target), cases, sessions)
    config = TrainingConfig(epochs=3, tokens_per_step=256, evaluations=3, patience=10, order="random")
    model = ModelConfig.model_validate(groups_of("sasrec", "causal", "sampled_softmax"))

    def stop(state: Any) -> None:
        if state.step > 20:
            raise KeyboardInterrupt

    quiet: Callable[[object], None] = lambda line: None  # noqa: E731
    _, whole = fit(schema, split, model, config, folder / "whole", quiet)
    try:
        fit(schema, split, model, config, folder / "broken", quiet, after_step=stop)
        raise AssertionError("it was not stopped")
    except KeyboardInterrupt:
        _, again = fit(schema, split, model, config, folder / "broken", quiet)
    last = [facts["history"][-1]["loss"] for facts in (whole, again)]
    assert abs(last[0] - last[1]) < 0.02 * last[0], last
    return last


def label_heads(folder: Path) -> Any:
    """Heads on labels, captured."""
    schema, sessions = made_up()
    odd = (sessions.items % 2).float()
    sessions = replace(sessions, event_labels={"odd": odd}, labels={"size": sessions.lengths.float()})
    labels = (
        LabelColumn(name="odd", per="event", source="odd"),
        LabelColumn(name="size", per="session", source="size"),
    )
    cases = hide_last(sessions)
    split = Split(sessions, Cases(cases.history, cases.target), cases, sessions)
    heads = {"next_item": {"bias": True}, "odd": "binary", "size": {"name": "regression", "log": True}}
    config = TrainingConfig(epochs=2, tokens_per_step=512, evaluations=2, patience=10, order="random")
    model, facts = fit(
        schema.model_copy(update={"labels": labels}), split, ModelConfig.model_validate({"heads": heads}), config, folder,
        lambda line: None,
    )  # fmt: skip
    scorer = ModelScorer(model)
    ids_NK, _ = top_k(scorer, sessions.to(model.device), 5)
    assert ids_NK.shape == (len(sessions), 5)
    return facts["history"][-1]["validation"]
