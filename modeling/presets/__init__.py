"""Published models as settings, one YAML file each, found by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from modeling.config import BodyConfig, HeadConfig, InputsConfig, LossConfig, ObjectiveConfig, TrainingConfig
from schemas import places, plugins
from schemas.errors import InputError, parse, reason
from schemas.yaml_keys import load_yaml

FOLDER = Path(__file__).parent


class Preset(BaseModel):
    """A model as it was published: settings that lie over what suits a dataset, and below what a person gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(description="One line for people.")
    paper: str = Field(pattern=r"\barXiv:\d{4}\.\d{5}\b|\bdoi:10\.", description="Where the settings come from.")
    deviates: tuple[str, ...] = Field(min_length=1, description="Where it is not as in the paper or its code.")
    inputs: InputsConfig | None = None
    body: BodyConfig | None = None
    objective: ObjectiveConfig | None = None
    loss: LossConfig | None = None
    heads: dict[str, HeadConfig] | None = None
    training: TrainingConfig | None = None

    @property
    def layer(self) -> dict[str, Any]:
        """The groups as they are set, and no more."""
        return self.model_dump(exclude_unset=True, exclude={"title", "paper", "deviates"})


def known_presets() -> list[str]:
    """All names, sorted: Overnight's own, and those of people's own folders and packages."""
    return sorted(places.places(FOLDER))


def read_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        InputError: for an unknown name, with the known ones, or a file that is no preset, such as one with a key given twice.
    """
    path = plugins.find_file(FOLDER, name)
    try:
        data = load_yaml(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}).") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    return parse(Preset, data, str(path))
