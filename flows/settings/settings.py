"""What can be set for a run, by the form in the UI, by a deployment or by `--set`, and the settings it makes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.settings.layers import GROUPS, Groups, Layer, pile
from flows.settings.limits import Limits
from modeling.config import EvaluationConfig, Goal, ModelConfig, PromotionConfig, TrainingConfig
from modeling.evaluation import baselines
from modeling.presets import read_preset
from preprocessing.engines import EngineName
from schemas import plugins
from schemas.artifacts import Artifacts
from schemas.columns import ITEM_ID
from schemas.dataset import Dataset, Feature, read_dataset
from schemas.errors import InputError, parse, unknown
from schemas.finished import FinishedArtifacts


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
    redo: str | None = Field(
        None,
        title="Redo",
        description="Do finished days again that the source still holds: 2024-05-01 or 2024-05-01..2024-05-03.",
    )
    engine: EngineName = Field(
        "cpu",
        title="Engine",
        description="What prepares the events: cpu or gpu (Polars), or nvtabular for the features.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        title="Workers",
        description="Prepare in so many threads or processes (gpu: GPUs). Empty: undivided.",
    )
    scheduler: str | None = Field(
        None, title="Scheduler", description="Prepare with the workers of a running Dask scheduler, tcp://HOST:PORT."
    )
    changes: dict[str, Any] = Field(
        {}, title="Changes", description='Dotted keys of the dataset to change, such as {"sessions.gap_minutes": 20}.'
    )

    @property
    def redo_days(self) -> tuple[date, date] | None:
        """The first and the last day to do again.

        Raises:
            InputError: for anything but a day or a range of days.
        """
        if self.redo is None:
            return None
        first, dots, last = self.redo.partition("..")
        days = _day(first), _day(last if dots else first)
        if days[0] is None or days[1] is None:
            problem = "not a day, or a first and a last day with .. between them"
        elif days[0] > days[1]:
            problem = "the last day lies before the first"
        else:
            return days[0], days[1]
        raise InputError(f"redo {self.redo!r}: {problem}; give 2024-05-01 or 2024-05-01..2024-05-03.")


def _day(text: str) -> date | None:
    """A day written as YYYY-MM-DD; None for any other text."""
    try:
        day = date.fromisoformat(text.strip())
    except ValueError:
        return None
    return day if str(day) == text.strip() else None


@dataclass(frozen=True)
class Settings:
    """Everything a run needs, resolved: what was given, else the preset's, else what suits the dataset, else the default."""

    data: Data
    preset: str | None
    given: Layer  # as it was given, for the run to show
    dataset: Dataset
    model: ModelConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    promotion: PromotionConfig
    limits: Limits = Limits()  # noqa: RUF009  (frozen)
    only_finished: bool = False  # whether stages may only return what is there
    due: datetime | None = None  # when a schedule asked for this night; None: a person did

    @property
    def artifacts(self) -> Artifacts:
        """The artifact folders below the run's root."""
        kind = FinishedArtifacts if self.only_finished else Artifacts
        return kind(self.data.root or os.environ.get("OVERNIGHT_ROOT", "overnight-data"))

    @property
    def goal(self) -> Goal:
        """What validation chooses by: what promotion goes by."""
        return Goal(metric=self.promotion.metric, filter_seen=self.evaluation.filter_seen)

    def introduce(self, say: Callable[[str], object]) -> None:
        """Say which preset was chosen, in one line."""
        if self.preset:
            chosen = read_preset(self.preset)
            say(f"Preset {self.preset}: {chosen.title} ({chosen.paper}). `overnight models` says where it deviates.")


def resolve(data: Data, preset: str | None = None, given: Layer | None = None) -> Settings:
    """Read the dataset and put together what was given, the preset and what suits the dataset; refuse what cannot work.

    Raises:
        InputError: for an unknown dataset or preset, no source, or settings that do not fit, alone or together.
    """
    data.redo_days  # noqa: B018  (what is wrong with it is said before any work)
    dataset = read_dataset(data.dataset, data.changes).at(data.source, data.root)
    for group in dataset.defaults:
        if group not in GROUPS:
            raise unknown(f"group in the defaults of {dataset.name}", group, GROUPS)
    chosen = read_preset(preset).layer if preset else {}
    where = f"settings for {dataset.name}" + (f" with preset {preset}" if preset else "")
    groups = parse(Groups, pile(given or {}, chosen, dataset.defaults), where)
    model = ModelConfig(**{name: getattr(groups, name) for name in ModelConfig.model_fields})
    tried = [parse(Groups, pile(layer), where) for layer in ({}, chosen)]
    if model.inputs.positions == "rotary" or _chosen(model) not in map(_chosen, tried):
        from modeling import parts  # with torch, for which a night with nothing to do should not wait

        parts.check(model)
    _check_baselines(groups.evaluation.baselines)
    groups.promotion.check(groups.evaluation, model.heads)
    if groups.promotion.clicks:
        _check_clicks(dataset)
    groups.evaluation.check_diversity(
        [name for name, feature in dataset.features.items() if _is_of_items(name, feature)]
    )
    return Settings(
        data, preset, given or {}, dataset, model, groups.training, groups.evaluation, groups.promotion, groups.limits
    )


def _check_clicks(dataset: Dataset) -> None:
    """Raise InputError where clicks are to decide, and none are counted that could."""
    serving = dataset.serving
    if serving.tracking is None:
        raise InputError(
            f"promotion.clicks is true, and {dataset.name!r} tracks no clicks: add `serving: {{tracking: {{}}}}` to its YAML, "
            "or leave promotion.clicks out."
        )
    if serving.side_by_side and serving.side_by_side.model == "previous":
        raise InputError(
            "promotion.clicks is true, and serving.side_by_side.model is previous: clicks decide whether a model that is named "
            "takes over, such as models/1f2e."
        )


def _check_baselines(names: tuple[str, ...]) -> None:
    """Raise InputError for a baseline that is not there, or one of people's own that cannot be used."""
    known = plugins.names(baselines)
    shipped = {path.stem for folder in baselines.__path__ for path in Path(folder).glob("*.py")}
    for name in names:
        if name not in known:
            raise InputError(f"evaluation.baselines: {unknown('baseline', name, known)}")
        if name not in shipped:
            plugins.find(baselines, name)


def _is_of_items(name: str, feature: Feature) -> bool:
    """Whether items have a feature: those of events, as the newest event of an item has them."""
    return name != ITEM_ID and feature.per == "event"


def _chosen(model: ModelConfig) -> tuple[Any, ...]:
    """Of a model's settings those that may not go together, whatever its sizes."""
    body, objective, loss = ((choice.name, choice.options) for choice in (model.body, model.objective, model.loss))
    heads = {label: (head.name, head.options) for label, head in model.heads.items()}
    inputs = model.inputs.query_time, bool(model.inputs.past_events)
    return body, objective, loss, model.loss.negatives.corrected, heads, inputs
