"""Whether training can go on from a model: the settings that say what its weights mean, and the features it reads."""

from __future__ import annotations

from typing import Any

from modeling.config import ModelConfig
from modeling.features import read_features, time_feature
from modeling.model import SequenceModel
from modeling.vocabularies import difference
from schemas.features import FeatureSchema

# Settings that say how a model is trained, not what its weights mean.
FREE = ("loss", "body.dropout", "body.attention_dropout", "inputs.id_dropout", "inputs.swap_noise", "inputs.item_start")
FREE_ANYWHERE = ("weight", "path", "key", "column")  # of heads, and of the file of pretrained vectors


def misfit(parent: SequenceModel, config: ModelConfig, schema: FeatureSchema) -> str:
    """Why training cannot go on from a model with these settings and sessions of this schema; empty where it can."""
    now, then = _meaning(config.model_dump(mode="json")), _meaning(parent.settings.model_dump(mode="json"))
    for key in sorted(now.keys() | then.keys()):
        if now.get(key) != then.get(key):
            return f"{key} is {now.get(key, 'not set')} now, {then.get(key, 'not set')} in the model"
    if schema.split != parent.schema.split:
        return f"the split is {schema.split} now, {parent.schema.split} for the model"
    times = time_feature(config.inputs, schema), time_feature(parent.settings.inputs, parent.schema)
    time, their_time = (column.name if column else "none" for column in times)
    if time != their_time:
        return f"the feature of time is {time} now, {their_time} in the model"
    columns, theirs = read_features(config, schema), read_features(parent.settings, parent.schema)
    names, their_names = [column.name for column in columns], [column.name for column in theirs]
    if names != their_names:
        return (
            f"the features read are {', '.join(names) or 'none'} now, {', '.join(their_names) or 'none'} in the model"
        )
    for column, other in zip((schema.items, *columns), (parent.schema.items, *theirs), strict=True):
        if different := difference(column, other):
            return f"the feature {column.name} is made another way now ({different})"
    return ""


def _meaning(settings: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Settings that say what weights mean, by dotted key."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{path}.{name}" if path else name
        if key in FREE or (path.startswith(("heads.", "inputs.pretrained")) and name in FREE_ANYWHERE):
            continue
        flat |= _meaning(value, key) if isinstance(value, dict) else {key: value}
    return flat
