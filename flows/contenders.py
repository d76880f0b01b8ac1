"""What can be compared: settings with a preset or without, settings of its own over them, or a model that is there already.

default                      the settings as they were given, with --preset if that was
esasrec                      another preset, under what was given
esasrec+body.dropout=0.3     the same with a setting of its own; several are joined by further +
models/1f2e                  a model of the root: it is measured, not trained
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flows.folds import Fold, OnProgress
from flows.in_service import model_of
from flows.measuring import Stage, require_ranks
from flows.settings.layers import Layer, over, read_changes
from flows.settings.settings import Settings, resolve
from modeling.presets import known_presets
from schemas.artifacts import Manifest
from schemas.errors import InputError, unknown

DEFAULT, MODEL, PRESET = "default", "models/", "preset"
BETWEEN = r",(?![^\[{]*[\]}])"  # commas, but not those of a list or mapping: a+inputs.features=[x, y],b
BEFORE_A_KEY = r"\+(?=\s*[a-z_.]+=)"  # not the sign of a number
FIXED = ("evaluation", "promotion")  # groups that are the same for all that are compared


@dataclass(frozen=True)
class NamedModel:
    """One of those compared: its name as it was written, and the `models/ID` or the preset and the settings it stands for.

    These are given as pairs such as `body.dropout=0.3` (`own`) or by group (`layer`), which goes over them.
    """

    name: str
    model: str | None = None
    preset: str | None = None
    own: tuple[str, ...] = ()
    layer: Layer = field(default_factory=dict)

    def settings(self, fold: Settings) -> Settings:
        """What it is trained with for a fold: its own settings over what was given, that over its preset.

        How it is measured is the fold's.
        """
        changes, layer = read_changes(list(self.own))
        assert not changes
        own = over(self.layer, layer)
        made = resolve(fold.data, self.preset or fold.preset, over(own, fold.given))
        return replace(made, evaluation=fold.evaluation, promotion=fold.promotion)

    @property
    def trains(self) -> bool:
        """Whether it is trained, not there already."""
        return self.model is None

    def model_for(
        self, fold: Fold, before: Manifest | None, train: Stage, progress: OnProgress
    ) -> tuple[Manifest, float]:
        """The model trained for a fold, or the one that is there, and the CPU seconds that took."""
        if self.model:
            return model_of(fold.settings.artifacts, self.model), 0.0
        model = train(self.settings(fold.settings), fold.sessions, progress)
        return model, float(model.facts["cpu_seconds"])


def contenders_of(text: str, settings: Settings) -> list[NamedModel]:
    """The contenders that a list such as `default,esasrec,sasrec+body.dim=128` names, each tried against the settings.

    Raises:
        InputError: for a name that is none, with those there are; one given twice; settings that do not fit or that would have
            it measured otherwise than the rest.
    """
    names = [name for part in re.split(BETWEEN, text) if (name := part.strip())]
    if not names:
        raise InputError(f"--presets names nothing to compare. Known: {', '.join(_known())}.")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--presets: {name!r} is named twice.")
        if name in settings.evaluation.baselines:
            raise InputError(f"--presets: {name!r} is a baseline (evaluation.baselines), which is measured anyway.")
    contenders = [_contender(name) for name in names]
    for contender in contenders:
        if contender.model is None:
            _check(contender, contender.settings(settings))
    return contenders


def named(models: Mapping[str, Mapping[str, Any]], settings: Settings) -> list[NamedModel]:
    """The contenders of names and settings by group, with or without a preset: {"small": {"preset": "esasrec", "loss": "bce"}}.

    Raises:
        InputError: as `contenders_of` does, for the name of a baseline, and for names that no table can show.
    """
    if not models:
        raise InputError('There is no model to compare: give at least one, such as {"default": {}}.')
    contenders = []
    for name, given in models.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"{name!r} is no name for a model: give it one line of text.")
        if not isinstance(given, Mapping):
            raise InputError(
                f'{name!r}: its settings are a mapping of groups, such as {{"loss": "bce"}}, got {given!r}.'
            )
        layer = {group: value for group, value in given.items() if group != PRESET}
        if fixed := [group for group in layer if group in FIXED]:
            raise InputError(f"{name!r} sets {fixed[0]}, which is the same for all that are compared: give it to all.")
        if name in settings.evaluation.baselines:
            raise InputError(f"{name!r} is the name of a baseline; give the model another.")
        contenders.append(NamedModel(name, preset=given.get(PRESET), layer=layer))
        _check(contenders[-1], contenders[-1].settings(settings))
    return contenders


def _check(contender: NamedModel, made: Settings) -> None:
    """Raise InputError for settings with which a model cannot be compared with the rest."""
    require_ranks(contender.name, made)
    if made.training.start_from:
        raise InputError(
            f"{contender.name!r} has training.start_from {made.training.start_from}, a model that may have learned "
            "from the days of the folds. Leave it out."
        )


def _contender(name: str) -> NamedModel:
    if name.startswith(MODEL):
        return NamedModel(name, model=name)
    preset, *own = (part.strip() for part in re.split(BEFORE_A_KEY, name))
    if preset not in (DEFAULT, *known_presets()):
        raise unknown("name in --presets", preset, _known())
    for pair in own:
        group = pair.partition("=")[0].partition(".")[0]
        if group == "dataset" or group in FIXED:
            raise InputError(
                f"--presets: {name!r} sets {pair!r}, and {group} is the same for all that are compared. Give it by --set."
            )
    read_changes(own)
    return NamedModel(name, preset=None if preset == DEFAULT else preset, own=tuple(own))


def _known() -> list[str]:
    return [DEFAULT, *known_presets(), "models/ID", "NAME+KEY=VALUE"]
