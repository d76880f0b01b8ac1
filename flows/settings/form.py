"""How settings look in the form of a run: a section for each group, in which nothing is filled in.

The form sends all values that it was given to begin with. Filled in, the defaults of one section would go over the preset and
over what suits the dataset as soon as a person opens it; so they are shown in words, and what is left empty is not given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

import modeling
from modeling.presets import known_presets, read_preset
from schemas.places import places
from schemas.plugins import in_yaml


class Section:
    """Goes with a settings class in `Annotated`. With a folder of modeling, `name` is one of its files."""

    def __init__(self, folder: str = "") -> None:
        self.folder = folder

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        section = handler(core)
        _leave_open(section, handler)
        if self.folder:
            names = sorted(places(Path(modeling.__file__).parent / self.folder))
            handler.resolve_ref_schema(section)["properties"]["name"]["enum"] = names
        return section


class _Names:
    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        titles = {name: read_preset(name).title for name in known_presets()}
        titled = "; ".join(f"{name}: {title}" for name, title in titles.items())
        return handler(core) | {"title": "Preset", "enum": list(titles), "description": titled}


PresetName = Annotated[str, _Names()]


def _leave_open(section: dict[str, Any], handler: GetJsonSchemaHandler) -> None:
    schema = handler.resolve_ref_schema(section)
    schema.pop("required", None)
    for field in schema["properties"].values():
        default = field.pop("default", None)
        if options := field.pop("anyOf", None):  # X or nothing: an empty X is nothing
            field |= next(option for option in options if option != {"type": "null"})
        if field.get("type") == "boolean":  # a switch is on or off, and never empty
            del field["type"]
            field["enum"] = [True, False]
        if "$ref" in field:
            _leave_open({"$ref": field["$ref"]}, handler)
        elif default not in (None, {}):
            field["description"] += f" Default: {in_yaml(default)}."
