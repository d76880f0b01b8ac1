"""Settings in layers: what a person gave lies over a preset, that over what suits the dataset, that over the defaults.

A layer is a mapping by group, of any depth. Bodies, objectives, losses and heads are chosen by name, so a layer that chooses
another one hides the options of the layers below, which belong to the one that was chosen there.
"""

from __future__ import annotations

import difflib
import re
from functools import reduce
from typing import Any

import yaml
from pydantic import BaseModel

from flows.settings.limits import Limits
from modeling.config import (
    NEXT_ITEM,
    BodyConfig,
    Choice,
    EvaluationConfig,
    HeadConfig,
    LossConfig,
    ModelConfig,
    ObjectiveConfig,
    PromotionConfig,
    TrainingConfig,
)
from schemas.errors import InputError, unknown

Layer = dict[str, Any]
CHOICES: dict[str, type[Choice]] = {"body": BodyConfig, "objective": ObjectiveConfig, "loss": LossConfig}
DEFAULTS: Layer = {"heads": {NEXT_ITEM: {}}}  # those of a class are filled in by the class; a mapping has none


class Groups(ModelConfig):
    """All groups of settings that a run takes."""

    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    promotion: PromotionConfig = PromotionConfig()
    limits: Limits = Limits()


GROUPS = tuple(Groups.model_fields)


def pile(*layers: Layer) -> Layer:
    """One layer from several, the uppermost first. A head that is set to false is no more."""
    merged = reduce(_lay_over, (plain(layer) for layer in reversed(layers)), DEFAULTS)
    if isinstance(heads := merged["heads"], dict):
        merged["heads"] = {label: head for label, head in heads.items() if head is not False}
    return merged


def over(upper: Layer, lower: Layer) -> Layer:
    """One layer from two, groups written out, without the defaults of the code: what `upper` gives goes over `lower`."""
    return _lay_over(plain(lower), plain(upper))


def plain(layer: Layer) -> Layer:
    """A layer with every group written out: `gbce` is `{name: gbce}`, and options stand beside the other keys.

    What has not the form of a group stays as it is, for the classes to refuse.
    """
    written: Layer = {}
    for group, given in layer.items():
        if group == "heads" and isinstance(given, dict):
            written[group] = {label: {} if head is None else _write_out(head) for label, head in given.items()}
        elif given is not None:
            written[group] = _write_out(given) if group in CHOICES else _as_mapping(given)
    return written


def read_changes(pairs: list[str]) -> tuple[Layer, Layer]:
    """`["body.dim=128", "loss=gbce", "dataset.split=day"]` as dotted changes to the dataset and as a layer.

    Raises:
        InputError: for a pair without '=' or a group that is not known, with the nearest keys.
    """
    dataset: Layer = {}
    layer: Layer = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        group, _, rest = key.partition(".")
        if not equals or not group or key.endswith(".") or (group == "dataset" and not rest):
            raise InputError(f"--set {pair!r}: expected KEY=VALUE such as body.dim=128.{_near(pair)}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if group == "dataset":
            dataset[rest] = value
        elif group in GROUPS:
            path = rest.split(".") if rest else []
            given = reduce(lambda inner, name: {name: inner}, reversed(path), value)
            layer = _merge(layer, plain({group: given}))
        else:
            raise _unknown(key)
    return dataset, layer


def known_keys() -> list[str]:
    """All that `--set` takes, but for the options of what is chosen by name."""
    groups = {name: field.annotation for name, field in Groups.model_fields.items()}
    configs = {name: kind for name, kind in groups.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
    keys = [f"{group}.{name}" for group, kind in configs.items() for name in kind.model_fields if name != "options"]
    return [*keys, "heads.LABEL", "dataset.* (any key of its YAML)"]


def _unknown(key: str) -> InputError:
    """With the nearest keys: all of them are too many to read."""
    near = _nearest(key)
    if not near:
        return unknown("key", key, [*GROUPS, "dataset"])
    return InputError(f"Unknown key {key!r}. Did you mean {' or '.join(map(repr, near))}?")


def _nearest(key: str) -> list[str]:
    """The keys most like what was given: groups for a word alone, else keys, or keys that end alike."""
    whole, last = known_keys(), key.rpartition(".")[2]
    if "." not in key and (groups := difflib.get_close_matches(key, GROUPS, n=1)):
        return groups
    ends = {known.rpartition(".")[2]: known for known in reversed(whole)}
    alike = [ends[end] for end in difflib.get_close_matches(last, ends, n=2)]
    return difflib.get_close_matches(key, whole, n=3) or alike


def _near(pair: str) -> str:
    """The nearest keys to what was given without '='; where none is near, the groups."""
    named = re.match(r"[\w.]*", pair.strip())
    key = (named[0] if named else "").strip(".")
    whole = known_keys()
    if key in whole and pair.strip() != key:
        return f" Did you mean '{key}={pair.strip().removeprefix(key).lstrip(' :=')}'?"
    inside = [known for known in whole if key and (known.partition(".")[0] == key or known.rpartition(".")[2] == key)]
    wanted = [known for known in [key, *inside, *_nearest(key)] if known in whole or known in GROUPS][:3]
    if not wanted:
        return f" A key begins with one of {', '.join([*GROUPS, 'dataset'])}."
    return f" Did you mean {' or '.join(f'{name}=VALUE' for name in dict.fromkeys(wanted))}?"


def _as_mapping(given: Any) -> Any:
    return given.model_dump(exclude_unset=True) if isinstance(given, BaseModel) else given


def _write_out(given: Any) -> Any:
    value = {"name": given} if isinstance(given, str) else _as_mapping(given)
    if isinstance(value, dict) and isinstance(value.get("options"), dict):
        return {key: option for key, option in value.items() if key != "options"} | value["options"]
    return value


def _lay_over(lower: Layer, upper: Layer) -> Layer:
    merged = dict(lower)
    for group, given in upper.items():
        below = lower.get(group, {})
        if group in CHOICES:
            kind = CHOICES[group]
            merged[group] = _choose(kind, kind.model_fields["name"].default, below, given)
        elif group == "heads" and isinstance(given, dict) and isinstance(below, dict):
            heads = {label: _lay_head(label, below.get(label, {}), head) for label, head in given.items()}
            merged[group] = below | heads
        else:
            merged[group] = _merge(below, given)
    return merged


def _lay_head(label: str, lower: Any, upper: Any) -> Any:
    default = NEXT_ITEM if label == NEXT_ITEM else HeadConfig.model_fields["name"].default
    return _choose(HeadConfig, default, lower, upper)


def _choose(kind: type[Choice], default: str, lower: Any, upper: Any) -> Any:
    """`upper` over `lower`; options of `lower` go when `upper` chooses another name."""
    if isinstance(lower, dict) and isinstance(upper, dict):
        before = lower.get("name", default)
        if upper.get("name", before) != before:
            lower = {key: value for key, value in lower.items() if key in kind.model_fields}
    return _merge(lower, upper)


def _merge(lower: Any, upper: Any) -> Any:
    if not isinstance(lower, dict) or not isinstance(upper, dict):
        return upper
    return lower | {key: _merge(lower.get(key), value) for key, value in upper.items()}
