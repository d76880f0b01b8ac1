"""What a run can be told, by the form in the UI, by a deployment or by `--set`, and how that becomes settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field

from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig
from preprocessing.engines import EngineName
from schemas.artifacts import Artifacts
from schemas.dataset import Dataset, read_dataset
from schemas.errors import InputError, parse, unknown

Config = TypeVar("Config", bound=BaseModel)


class Data(BaseModel):
    """Which events, up to which day, and where results go."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Data")

    dataset: str = Field("demo", title="Dataset", description="A known name (`overnight datasets`) or a YAML file.")
    source: str | None = Field(
        None, title="Source", description="Folder of the files; empty takes $OVERNIGHT_SOURCE or the dataset's own."
    )
    root: Path | None = Field(
        None, title="Root", description="Folder of artifacts and models; empty takes $OVERNIGHT_ROOT or overnight-data."
    )
    until: date | None = Field(
        None, title="Until", description="The day to evaluate on, the last one used. Empty: the last full day."
    )
    days: int | None = Field(None, ge=2, title="Days", description="Use only so many days up to then. Empty: all.")
    engine: EngineName = Field(
        "cpu",
        title="Engine",
        description="What prepares the events: cpu or gpu (Polars), or nvtabular for the features.",
    )
    workers: int | None = Field(
        None, ge=1, title="Workers", description="Prepare with so many processes (gpu: GPUs). Empty: in the run's own."
    )
    scheduler: str | None = Field(
        None, title="Scheduler", description="Prepare with the workers of a running Dask scheduler, tcp://HOST:PORT."
    )
    changes: dict[str, Any] = Field(
        {}, title="Changes", description='Dotted keys of the dataset to change, such as {"sessions.gap_minutes": 20}.'
    )


GROUPS: dict[str, type[BaseModel]] = {
    "model": ModelConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
    "promotion": PromotionConfig,
}


@dataclass(frozen=True)
class Settings:
    """Everything a run needs, resolved: what was given, else what suits the dataset, else the default."""

    data: Data
    dataset: Dataset
    model: ModelConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    promotion: PromotionConfig

    @property
    def artifacts(self) -> Artifacts:
        """The artifact folders below the run's root."""
        return Artifacts(self.data.root or os.environ.get("OVERNIGHT_ROOT", "overnight-data"))


def resolve(
    data: Data,
    model: ModelConfig | None = None,
    training: TrainingConfig | None = None,
    evaluation: EvaluationConfig | None = None,
    promotion: PromotionConfig | None = None,
) -> Settings:
    """Read the dataset and let its defaults fill whatever was not given explicitly.

    Raises:
        InputError: for an unknown dataset, no source, or defaults in its YAML that do not fit.
    """
    dataset = read_dataset(data.dataset, data.changes).at(data.source)
    for group in dataset.defaults:
        if group not in GROUPS:
            raise unknown("group in defaults", group, GROUPS)

    def fill(kind: type[Config], group: str, given: BaseModel | None) -> Config:
        explicit = given.model_dump(exclude_unset=True) if given else {}
        return parse(kind, dataset.defaults.get(group, {}) | explicit, f"{group} of {dataset.name}")

    settings = Settings(
        data,
        dataset,
        fill(ModelConfig, "model", model),
        fill(TrainingConfig, "training", training),
        fill(EvaluationConfig, "evaluation", evaluation),
        fill(PromotionConfig, "promotion", promotion),
    )
    settings.promotion.check(settings.evaluation)
    return settings


def read_changes(pairs: list[str]) -> tuple[dict[str, Any], dict[str, BaseModel]]:
    """`["model.dim=128", "dataset.sessions.gap_minutes=20"]` as changes to the dataset and as configs by group.

    Raises:
        InputError: for a pair without '=', an unknown key (with the known ones) or a value that does not fit.
    """
    dataset: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        group, _, name = key.partition(".")
        if not equals or not name:
            raise InputError(f"--set {pair!r}: expected KEY=VALUE such as model.dim=128. Known: {_known_keys()}.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if group == "dataset":
            dataset[name] = value
        elif group not in GROUPS or name not in GROUPS[group].model_fields:
            raise unknown("key", key, [*_known_keys().split(", ")])
        else:
            groups.setdefault(group, {})[name] = value
    return dataset, {group: parse(GROUPS[group], values, f"--set {group}") for group, values in groups.items()}


def _known_keys() -> str:
    keys = [f"{group}.{name}" for group, config in GROUPS.items() for name in config.model_fields]
    return ", ".join([*keys, "dataset.* (any key of its YAML)"])
