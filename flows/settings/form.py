"""What the form of a run shows, as the JSON schema that Prefect's UI draws, and what was chosen in it.

The UI has no field that may be left alone but an empty one, and draws "X or nothing" as a switch between types. So a field
that may be empty is one of plain X; one with a few values is a drop-down whose first entry says what happens if nothing is
chosen, and `chosen` leaves that entry out. Nothing else is filled in: a default would go over the preset and over what suits
the dataset.

Only usual settings are drawn. All of them are accepted, with the same checks, from a deployment or a program, and as lines
KEY=VALUE in the form: the UI draws `properties`, and a server checks `patternProperties` as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

import modeling
from flows.settings.layers import GROUPS, Layer, over, read_changes
from flows.settings.settings import Data
from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig
from modeling.presets import known_presets, read_preset
from schemas.dataset import SHIPPED
from schemas.errors import InputError, unknown
from schemas.places import places
from schemas.plugins import in_yaml

DATASET = "demo"  # where none is chosen
UNSET = "Not chosen: "  # begins the first entry of a drop-down
LAYERED = "as the preset or the dataset says"
FOLDERS = {"body": "bodies", "loss": "losses"}  # of modeling: the names that a choice has
ANY_DATASET, ANY_PRESET = UNSET + DATASET, UNSET + "what suits the dataset"
DAY = r"\d{4}-\d{2}-\d{2}"
Schema = dict[str, Any]


class Model(ModelConfig):
    """What is trained: a preset, and settings that go over it."""

    preset: str | None = Field(None, title="Preset", description="A published model to begin with.")


class Shown:
    """Goes with a parameter in `Annotated`: its schema, which `make` makes when the form is asked for."""

    def __init__(self, make: Callable[[], Schema]) -> None:
        self.make = make

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return self.make()


def unset(what: str) -> str:
    """The first entry of a drop-down: what happens if nothing is chosen."""
    return UNSET + what


def chosen(given: Any) -> Any:
    """What was chosen in a form: None for the first entry of a drop-down, and without the keys that hold one.

    {"body": {"name": "Not chosen: sasrec"}, "loss": {"name": "gbce"}} -> {"loss": {"name": "gbce"}}
    """
    if isinstance(given, str):
        return None if given.startswith(UNSET) else given
    if not isinstance(given, dict):
        return given
    taken = {key: (value, chosen(value)) for key, value in given.items()}
    return {key: after for key, (before, after) in taken.items() if after == before or after not in (None, {})}


def layer_of(model: Any, groups: Layer, lines: Iterable[str] | Layer) -> tuple[str | None, Layer, Layer]:
    """Parameters of a run -> the preset, settings by group, and dotted changes to the dataset; lines go over the rest.

    Raises:
        InputError: for a key that is not known, with those that are.
    """
    given = chosen(model.model_dump(exclude_unset=True) if isinstance(model, BaseModel) else model or {})
    if not isinstance(given, dict):
        raise InputError(f"model: expected a mapping such as {{preset: sasrec}}, got {given!r}.")
    for key in given:
        if key not in Model.model_fields:
            raise unknown("key", f"model.{key}", [f"model.{name}" for name in Model.model_fields])
    layer = {key: given[key] for key in given if key != "preset"}
    layer |= {group: taken for group, value in groups.items() if (taken := chosen(value)) not in (None, {})}
    if not lines:
        return given.get("preset"), layer, {}
    pairs = [f"{key}={json.dumps(value)}" for key, value in lines.items()] if isinstance(lines, dict) else list(lines)
    of_dataset, changes = read_changes(pairs)
    return given.get("preset"), over(changes, layer), of_dataset


def parameters_of(preset: str | None, layer: Layer) -> Layer:
    """A preset and settings by group -> the parameters of a run that `layer_of` reads."""
    model = {"preset": preset} if preset else {}
    model |= {group: layer[group] for group in ModelConfig.model_fields if layer.get(group) is not None}
    groups = {group: given for group, given in layer.items() if group not in ModelConfig.model_fields}
    limits = groups.pop("limits", None)  # of which the form has lines alone
    return {"model": model} | groups | ({"changes": {"limits": limits}} if limits else {})


def section(kind: type[BaseModel], shown: tuple[str, ...], otherwise: str = "") -> Schema:
    """A class of settings as a group of a form that draws the fields `shown`, in that order; `body.dim` is one of a group.

    `otherwise` says where a value comes from that is not chosen; the default follows.
    """
    whole = kind.model_json_schema()
    schema = _inlined(whole, whole.pop("$defs", {}))
    return _drawn(schema, shown, otherwise)


def dataset_names() -> Schema:
    """The field of a dataset: one of the list, or a YAML file."""
    listed = {"title": "In the list", "type": "string", "enum": [ANY_DATASET, *sorted(places(SHIPPED))]}
    file = {"title": "A YAML file", "pattern": r"\.ya?ml$", "not": {"type": ["null", "number", "object", "array"]}}
    about = "One of the list (`overnight datasets`), or the path of a YAML file, in quotes."
    return {"title": "Dataset", "description": about, "anyOf": [listed, file], "default": ANY_DATASET}


def preset_names() -> Schema:
    """The field of a preset."""
    titles = {name: read_preset(name).title for name in known_presets()}
    about = "A published model to begin with. " + "; ".join(f"{name}: {title}" for name, title in titles.items()) + "."
    return _drop_down({"title": "Preset", "type": "string", "description": about}, list(titles), ANY_PRESET)


def lines() -> Schema:
    """The field of any other setting."""
    about = (
        "Any other setting, a line each, as `--set` takes it: body.dim=128, training.patience=5, "
        "inputs.positions=rotary, dataset.sessions.gap_minutes=20. A wrong key is answered with the known ones."
    )
    line = {"type": "string", "pattern": rf"^(dataset\.[^=]|({'|'.join(GROUPS)})(\.[^=]+)?=)"}
    return {"type": "array", "items": line, "title": "changes", "description": about}


def data(without: tuple[str, ...] = ()) -> Schema:
    """The group of events, but for the fields that a form says otherwise."""
    shown = ("dataset", "until", "engine", "source", "days", "redo")
    schema = section(Data, tuple(name for name in shown if name not in without))
    schema["properties"]["dataset"] = dataset_names()
    if redo := schema["properties"].get("redo"):
        redo["pattern"] = rf"^{DAY}(\.\.{DAY})?$"
    return schema


def model() -> Schema:
    """The group of what is trained."""
    sizes = ("body.dim", "body.num_layers", "body.num_heads", "body.dropout")
    schema = section(Model, ("preset", "body.name", *sizes, "loss.name"), LAYERED)
    schema["properties"]["preset"] = preset_names()
    schema["patternProperties"]["^heads$"] = {"type": "object"}  # false removes one, which `resolve` knows
    return schema


def training() -> Schema:
    """The group of how it is fit."""
    shown = ("epochs", "order", "learning_rate", "start_from", "refit")
    return section(TrainingConfig, shown, LAYERED)


def evaluation() -> Schema:
    """The group of what is measured."""
    return section(EvaluationConfig, ("filter_seen",), LAYERED)


def promotion() -> Schema:
    """The group of when it takes over."""
    return section(PromotionConfig, ("metric", "min_gain", "margin"), LAYERED)


DataForm = Annotated[Data | Layer, Shown(data)]
PastForm = Annotated[Data | Layer, Shown(lambda: data(without=("until",)))]
BacktestForm = Annotated[Data | Layer, Shown(lambda: data(without=("until", "days", "redo")))]
ModelForm = Annotated[Model | Layer, Shown(model)]
TrainingForm = Annotated[TrainingConfig | Layer, Shown(training)]
EvaluationForm = Annotated[EvaluationConfig | Layer, Shown(evaluation)]
PromotionForm = Annotated[PromotionConfig | Layer, Shown(promotion)]
Lines = Annotated[list[str] | Layer, Shown(lines)]
DatasetName = Annotated[str, Shown(dataset_names)]
PresetName = Annotated[str, Shown(preset_names)]


def _drawn(schema: Schema, shown: tuple[str, ...], otherwise: str) -> Schema:
    fields = schema.pop("properties")
    schema.pop("required", None)
    names = dict.fromkeys(key.partition(".")[0] for key in shown)
    drawn = {}
    for name in names:
        field = _plain(fields[name])
        if "properties" in field:
            inner = tuple(key.partition(".")[2] for key in shown if key.startswith(f"{name}."))
            drawn[name] = _drawn(field, inner, otherwise)
            drawn[name].pop("default", None)
            if name in FOLDERS:
                _name_parts(drawn[name]["properties"], fields[name], FOLDERS[name])
        else:
            drawn[name] = _open(field, otherwise)
    rest = {f"^{name}$": field for name, field in fields.items() if name not in names}
    return schema | {"properties": drawn, "patternProperties": rest}


def _name_parts(fields: Schema, choice: Schema, folder: str) -> None:
    """Make the name of a part a drop-down."""
    default = choice["properties"]["name"].get("default")
    names = sorted(places(Path(modeling.__file__).parent / folder))
    about = {**choice["properties"]["name"]}
    fields["name"] = _drop_down(about, names, unset(f"{LAYERED}, else {default}"))


def _open(field: Schema, otherwise: str) -> Schema:
    """A field that may be left empty, or a drop-down; the default is only said."""
    default = field.pop("default", None)
    said = ", else ".join(filter(None, [otherwise, None if default is None else in_yaml(default)]))
    if field.get("type") == "boolean":  # a switch is on or off, and never empty
        del field["type"]
        return _drop_down(field, [True, False], unset(said))
    if "enum" in field:
        return _drop_down(field, field["enum"], unset(said or "empty"))
    if default not in (None, {}):
        field["description"] += f" Default: {in_yaml(default)}."
    return field


def _drop_down(field: Schema, values: list[Any], first: str) -> Schema:
    return field | {"enum": [first, *values], "default": first}


def _plain(field: Schema) -> Schema:
    """X or nothing -> X: an empty X is nothing."""
    options = field.get("anyOf", [])
    kept = [option for option in options if option != {"type": "null"}]
    rest = {key: value for key, value in field.items() if key != "anyOf"}
    return dict(kept[0] | rest if kept else rest)


def _inlined(schema: Any, definitions: Schema) -> Any:
    """A schema with what it refers to in its place."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    whole = {key: _inlined(value, definitions) for key, value in schema.items() if key != "$ref"}
    if name := schema.get("$ref", "").rpartition("/")[2]:
        whole = _inlined(definitions[name], definitions) | whole
    return whole
