"""What names a result: the code that made it, the parts that were chosen, the settings and what it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modeling.config import ModelConfig, SplitConfig
from schemas import plugins
from schemas.artifacts import Manifest, sha256
from schemas.closure import code_of
from schemas.errors import InputError

ROOT = Path(__file__).parents[2]
# What stages run: the code of a result is that of these modules, of the parts that were chosen, and of all they import.
TRAINING = ("modeling.splits", "modeling.training.fit", "modeling.training.held_out")
EVALUATION = ("modeling.splits", "modeling.stages.measure")
COMPARISON = (  # the rule, and what it measures by EVALUATION
    "modeling.stages.comparing",
    "modeling.evaluation.compare",
    "modeling.evaluation.pointer",
    "modeling.stages.weighing",
    "modeling.evaluation.evidence",
    "modeling.stages.guarding",
    "modeling.stages.rival",
    "modeling.stages.seconding",
    "modeling.stages.by_clicks",
    "modeling.service.tracking.always_valid",
)


def selection_of(sessions: Manifest, split: SplitConfig) -> dict[str, Any]:
    """The newest fold of a split of these sessions: its rule and its days. Two spellings of a split have one name."""
    rule = split.rule or sessions.parameters.get("dataset", {}).get("split", "")
    days = split.stretches(sessions.facts["days"], sessions.facts["test_day"])[-1:]
    return {"rule": rule, "days": [(stretch.train, stretch.test) for stretch in days]}


def content_of(split: SplitConfig) -> str | None:
    """A hash of what the list of a split holds; None for other rules.

    Raises:
        InputError: when it cannot be read.
    """
    if split.path is None:
        return None
    try:
        return sha256(Path(split.path))
    except OSError as error:
        raise InputError(f"evaluation.split.path: {split.path} cannot be read ({error.strerror}).") from None


def code_of_training(config: ModelConfig) -> str:
    """A hash of the code that fits a model of these parts."""
    return _code_of(TRAINING, config.parts)


def code_of_evaluation(model: Manifest, baselines: Iterable[str]) -> str:
    """A hash of the code that measures a model and these baselines."""
    return _code_of(EVALUATION, {**parts_of(model), "baselines": baselines})


def code_of_comparison(rival: Manifest | None) -> str:
    """A hash of the code that compares a measured model with a rival, which it measures first."""
    return _code_of(EVALUATION, parts_of(rival) if rival else {}, alone=COMPARISON)


def _code_of(modules: tuple[str, ...], parts: Mapping[str, Iterable[str]], alone: tuple[str, ...] = ()) -> str:
    packages = {kind: f"modeling.{'evaluation.' * (kind == 'baselines')}{kind}" for kind in parts}
    chosen = tuple((packages[kind], name) for kind, names in parts.items() for name in sorted(names))
    own = tuple(file for files in plugins.own_files(parts).values() for file in files)
    return code_of(ROOT, modules, chosen, own, alone)


def parts_of(model: Manifest) -> Mapping[str, tuple[str, ...]]:
    """The parts of a model by kind; none where this code cannot read what it was made with, and so cannot load it either."""
    try:
        return ModelConfig.model_validate(model.parameters.get("model")).parts
    except ValidationError:
        return {}
