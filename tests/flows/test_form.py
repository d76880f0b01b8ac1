"""What the form of each deployment shows, by the schema that Prefect's UI draws, and what is made of what was chosen in it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.retrain import retrain
from flows.settings.form import UNSET, chosen, layer_of, parameters_of
from flows.settings.layers import GROUPS
from flows.settings.settings import Data, Settings, resolve
from modeling.presets import known_presets
from schemas.errors import InputError, parse

PROJECT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = {item["entrypoint"] for item in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]}
RETRAIN: dict[str, Any] = parameter_schema(retrain).model_dump_for_openapi()
Field = tuple[str, dict[str, Any]]


def schema_of(entrypoint: str) -> dict[str, Any]:
    """What `prefect deploy` stores, and the UI draws."""
    file, _, name = entrypoint.partition(":")
    flow = getattr(import_module(file.removesuffix(".py").replace("/", ".")), name)
    stored: dict[str, Any] = parameter_schema(flow).model_dump_for_openapi()
    return stored


def drawn(schema: dict[str, Any], definitions: dict[str, Any], place: str = "") -> Iterator[Field]:
    """Every field that the UI draws, groups first: (its place, its schema)."""
    for name, given in schema.get("properties", {}).items():
        field = definitions[given["$ref"].rpartition("/")[2]] | given if "$ref" in given else given
        key = f"{place}.{name}".strip(".")
        yield key, field
        yield from drawn(field, definitions, key)


def fields_of(entrypoint: str) -> list[Field]:
    schema = schema_of(entrypoint)
    return list(drawn(schema, schema.get("definitions", {})))


def untouched(schema: dict[str, Any]) -> dict[str, Any]:
    """What the UI sends for a form in which nothing was done: the defaults."""
    values: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        if "properties" in field:
            values[name] = untouched(field)
        elif "default" in field:
            values[name] = field["default"]
    return values


def settings_of(parameters: dict[str, Any]) -> Settings:
    """What a run makes of its parameters."""
    groups = {name: parameters.get(name, {}) for name in ("training", "evaluation", "promotion")}
    preset, layer, of_dataset = layer_of(parameters.get("model", {}), groups, parameters.get("changes", []))
    data = parse(Data, {"source": "/tmp"} | chosen(parameters.get("data", {})), "data")
    return resolve(data.model_copy(update={"changes": data.changes | of_dataset}), preset, layer)


def test_these_are_all_deployments() -> None:
    assert {entrypoint.partition(":")[2] for entrypoint in DEPLOYMENTS} >= {
        "retrain", "backfill", "backtest", "promote", "rollback", "prune",
    }  # fmt: skip


@pytest.mark.parametrize("entrypoint", sorted(DEPLOYMENTS))
def test_no_field_is_a_switch_between_types_or_json(entrypoint: str) -> None:
    fields = fields_of(entrypoint)
    assert fields
    for place, field in fields:
        options = field.get("anyOf", [])
        assert {"type": "null"} not in options and field.get("type") != "null", place
        assert not isinstance(field.get("type"), list), place
        if place.rpartition(".")[2] == "dataset":  # a file's path is the one thing in quotes
            assert [option["title"] for option in options] == ["In the list", "A YAML file"]
            field = options[0]
        else:
            assert not options, f"{place} is a switch between types"
        assert "type" in field or "enum" in field, f"{place} is drawn as JSON"
        assert field.get("type") != "object" or field.get("properties"), f"{place} is drawn as JSON"


@pytest.mark.parametrize("entrypoint", sorted(DEPLOYMENTS))
def test_a_drop_down_begins_with_what_happens_if_nothing_is_chosen(entrypoint: str) -> None:
    for place, field in fields_of(entrypoint):
        options = field["anyOf"][0] if "anyOf" in field else field
        if "enum" in options:
            assert field["default"] == options["enum"][0], place
            assert len(set(map(str, options["enum"]))) == len(options["enum"]) >= 2, place
        if field.get("type") == "boolean":
            assert field.get("default") is False, f"{place}: a switch cannot be left empty"


@pytest.mark.parametrize("entrypoint", sorted(DEPLOYMENTS))
def test_groups_are_few_and_every_field_says_what_it_is(entrypoint: str) -> None:
    schema = schema_of(entrypoint)
    assert len(schema["properties"]) <= 6
    for place, field in fields_of(entrypoint):
        assert field.get("title") and field.get("description"), place
        assert len(field.get("properties", {})) <= 8, f"{place}: too many fields for a usual run"


def test_the_usual_choices_are_drop_downs_and_days_are_dates() -> None:
    fields = dict(fields_of("flows/retrain.py:retrain"))
    assert fields["data.dataset"]["anyOf"][0]["enum"][:3] == [f"{UNSET}demo", "beauty", "demo"]
    assert fields["model.preset"]["enum"] == [f"{UNSET}what suits the dataset", *known_presets()]
    assert {"gru4rec", "sasrec", "gpt2"} <= set(fields["model.body.name"]["enum"])
    assert fields["model.body.name"]["enum"][0] == f"{UNSET}as the preset or the dataset says, else sasrec"
    assert {"gbce", "full_softmax"} <= set(fields["model.loss.name"]["enum"])
    assert fields["data.engine"]["enum"] == [f"{UNSET}cpu", "cpu", "gpu", "nvtabular"]
    assert fields["data.until"]["format"] == "date"
    assert (
        fields["model.body.dim"]["description"].endswith("Default: 64.") and "default" not in fields["model.body.dim"]
    )
    past = dict(fields_of("flows/backfill.py:backfill"))
    assert past["period.first"]["format"] == past["period.last"]["format"] == "date" and "data.until" not in past


def test_a_form_in_which_nothing_was_done_is_a_run_in_which_nothing_is_set() -> None:
    sent = untouched(RETRAIN)
    assert sent["model"]["preset"].startswith(UNSET)  # else this shows nothing
    validate(sent, RETRAIN, raise_on_error=True)
    assert settings_of(sent) == settings_of({}) == resolve(Data(source="/tmp"))


def test_what_was_chosen_is_what_the_run_is_set_to() -> None:
    sent = untouched(RETRAIN)
    sent["model"] |= {"preset": "gru4rec", "loss": {"name": "gbce"}}
    sent["model"]["body"]["num_layers"] = 3
    sent["training"] |= {"epochs": 4, "refit": True}
    sent["changes"] = ["loss.calibration=0.5", "training.patience=9", "dataset.sessions.gap_minutes=20"]
    validate(sent, RETRAIN, raise_on_error=True)
    made = settings_of(sent)
    layer = {
        "body": {"num_layers": 3},
        "loss": {"name": "gbce", "calibration": 0.5},
        "training": {"epochs": 4, "refit": True, "patience": 9},
    }
    wanted = resolve(Data(source="/tmp", changes={"sessions.gap_minutes": 20}), "gru4rec", layer)
    assert (made.model, made.training, made.dataset) == (wanted.model, wanted.training, wanted.dataset)


def test_what_was_not_chosen_goes_and_what_was_given_stays() -> None:
    assert chosen(f"{UNSET}demo") is None and chosen("demo") == "demo"
    given = {"a": f"{UNSET}x", "b": None, "c": {}, "d": {"e": f"{UNSET}y"}, "f": [1], "g": {"h": f"{UNSET}", "i": 0}}
    assert chosen(given) == {"b": None, "c": {}, "f": [1], "g": {"i": 0}}


@pytest.mark.parametrize("preset", [None, "gru4rec"])
@pytest.mark.parametrize("layer", [{}, {"body": {"dim": 8}, "heads": {"bought": {}}, "promotion": {"min_gain": None}}])
def test_a_preset_and_settings_come_back_from_the_parameters_of_a_run(
    preset: str | None, layer: dict[str, Any]
) -> None:
    parameters = parameters_of(preset, layer)
    assert set(parameters) <= set(RETRAIN["properties"])
    groups = {group: parameters[group] for group in parameters if group in GROUPS}
    assert layer_of(parameters["model"], groups, []) == (preset, layer, {})


@pytest.mark.parametrize(
    "given",
    [
        {"training": {"patience": 5, "half_life_days": None, "threads": 1}},
        {"model": {"heads": {"bought": {"name": "binary"}, "next_item": {"bias": True}}}},
        {"model": {"heads": {"bought": False}, "inputs": {"dims": {"price": 3}, "features": None}}},
        {"model": {"loss": {"name": "gbce", "negatives": {"count": 9}, "options": {"calibration": 0.5}}}},
        {"data": {"dataset": "/data/shop.yaml", "scheduler": "tcp://10.0.0.1:8786", "changes": {"split": "day"}}},
        {"data": {"dataset": "shop.yml", "until": None, "source": None, "redo": "2024-05-01..2024-05-03"}},
        {"evaluation": {"cutoffs": [5, 10], "split": {"rule": "day", "test_days": 2}}},
        {"promotion": {"min_gain": -0.5, "seed_scatter": 0.1}},
        {"changes": ["heads.bought=binary", "loss=gbce", "dataset.title=a = b", "training={epochs: 2}"]},
    ],
)
def test_a_deployment_or_a_program_may_give_every_setting(given: dict[str, Any]) -> None:
    validate(given, RETRAIN, raise_on_error=True)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"training": {"epochs": 0}}, "training.epochs"),
        ({"training": {"epochs": "many"}}, "training.epochs"),
        ({"training": {"patience": -1}}, "training.patience"),
        ({"training": {"start_from": "yesterday"}}, "training.start_from"),
        ({"training": {"epoch": 3}}, "training"),
        ({"model": {"preset": "sasrecc"}}, "model.preset"),
        ({"model": {"body": {"name": "bert5"}}}, "model.body.name"),
        ({"model": {"body": {"dim": 3}}}, "model.body.dim"),
        ({"model": {"loss": {"negatives": {"count": 0}}}}, "model.loss.negatives.count"),
        ({"data": {"dataset": "demoo"}}, "data.dataset"),
        ({"data": {"engine": "cuda"}}, "data.engine"),
        ({"data": {"days": 1}}, "data.days"),
        ({"data": {"redo": "yesterday"}}, "data.redo"),
        ({"promotion": {"margin": 1}}, "promotion.margin"),
        ({"evaluation": {"filter_seen": "yes"}}, "evaluation.filter_seen"),
        ({"changes": ["bdy.dim=3"]}, "changes[0]"),
        ({"changes": ["body.dim"]}, "changes[0]"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_before_there_is_a_run(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as error:
        validate(given, RETRAIN, raise_on_error=True)
    assert f"Validation failed for field '{field}'" in str(error.value)


def test_a_wrong_key_of_a_model_is_named_where_no_server_checks_it() -> None:
    with pytest.raises(InputError, match=r"Unknown key 'model\.bdy'\. Did you mean 'model\.body'"):
        layer_of({"bdy": {}}, {}, [])
    with pytest.raises(InputError, match="expected a mapping"):
        layer_of("sasrec", {}, [])
    with pytest.raises(InputError, match=r"Unknown key 'bdy\.dim'"):
        layer_of({}, {}, ["bdy.dim=3"])
