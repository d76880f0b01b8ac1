"""The YAML of a dataset: short forms, answers to typos, where its files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.dataset import Dataset, known, read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema, LabelColumn
from tests.conftest import schema_of

MINIMAL = """
name: shop
events: {columns: {user_id: u, item_id: i, timestamp: t}}
"""


def written(folder: Path, text: str) -> str:
    path = folder / "shop.yaml"
    path.write_text(text)
    return str(path)


def test_every_shipped_dataset_reads_and_tells_its_terms() -> None:
    for name in known():
        dataset = read_dataset(name)
        assert dataset.name == name
        assert dataset.title and dataset.obtain and dataset.terms


def test_short_forms(tmp_path: Path) -> None:
    steps = "steps: [drop_repeats, {join_items: {columns: [price]}}]\n"
    features = "features: {price: {encode: [log1p, standardize]}, brand: {encode: category, min_count: 5}}\n"
    dataset = read_dataset(written(tmp_path, MINIMAL + steps + features))
    assert [(step.name, step.options) for step in dataset.steps] == [
        ("drop_repeats", {}),
        ("join_items", {"columns": ["price"]}),
    ]
    assert [step.name for step in dataset.features["price"].encode] == ["log1p", "standardize"]
    assert dataset.features["brand"].encode[0].options == {"min_count": 5}


def test_labels_are_of_the_session_unless_they_are_said_to_be_of_events(tmp_path: Path) -> None:
    dataset = read_dataset(written(tmp_path, MINIMAL + "labels: [bought, {column: dwell, per: event}]"))
    assert [(label.column, label.per) for label in dataset.labels] == [("bought", "session"), ("dwell", "event")]
    assert Dataset.model_validate_json(dataset.model_dump_json()) == dataset


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL + "sesions: {}", "Unknown key 'sesions'. Did you mean 'sessions'?"),
        (MINIMAL + "sessions: {gap: 3}", "gap_minutes"),
        (MINIMAL + "sessions: {gap_minutes: -1}", "greater than 0, got -1"),
        (MINIMAL + "time_zone: Mars/Base", "Europe/Berlin"),
        (MINIMAL + "sessions: {rule: given}", "map session_id"),
        ("name: shop\nevents: {columns: {user_id: u, timestamp: t}}", "item_id must be mapped"),
        ("name: shop\nevents: {columns: {item_id: u, timestamp: t}}", "user_id or session_id"),
        ("name: ../shop\nevents: {columns: {user_id: u, item_id: i, timestamp: t}}", "name"),
        (MINIMAL + 'features: {"../x": category}', "letters, digits and underscores"),
        (MINIMAL + "features: {positions: category}", "needs another name"),
        (MINIMAL + "labels: [{column: dwell, per: item}]", "'session' or 'event', got 'item'"),
        (MINIMAL + "labels: [bought, {column: bought, per: event}]", "'bought' is there twice"),
        (MINIMAL + "labels: [length]", "the step rename gives one"),
        (MINIMAL + "labels: [item_id]", "taken: asks_last, count, day, end, from_end"),
        (
            MINIMAL + "features: {price: {encode: log1p}}\nlabels: [price]",
            "'price' is a feature, which needs another name (with `column: price`)",
        ),
        ("name: [", "not valid YAML"),
        ("just words", "expected a mapping"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_a_mistake_in_the_yaml_is_explained(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        read_dataset(written(tmp_path, text))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_changes_reach_into_parts_that_are_not_there_yet(tmp_path: Path) -> None:
    changes = {"sessions.gap_minutes": 5, "time_zone": "Europe/Berlin"}
    dataset = read_dataset(written(tmp_path, MINIMAL), changes)
    assert (dataset.sessions.gap_minutes, dataset.time_zone) == (5, "Europe/Berlin")
    with pytest.raises(InputError, match=r"Did you mean 'sessions\.gap_minutes'"):
        read_dataset(written(tmp_path, MINIMAL), {"sessions.gap_minuts": 5})
    with pytest.raises(InputError, match="has no keys"):
        read_dataset(written(tmp_path, MINIMAL), {"name.x": 5})


def test_the_source_comes_from_the_option_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = read_dataset("demo")
    monkeypatch.delenv("OVERNIGHT_SOURCE", raising=False)
    with pytest.raises(InputError, match="--source FOLDER"):
        dataset.at(None)
    monkeypatch.setenv("OVERNIGHT_SOURCE", "/from/environment")
    assert dataset.at(None).source == "/from/environment"
    assert dataset.at("/given").source == "/given"


def test_side_features_are_all_but_the_items(tmp_path: Path) -> None:
    schema = schema_of(5)
    device = schema.columns[1].model_copy(update={"name": "device", "per": "session"})
    tags = schema.columns[1].model_copy(update={"name": "tags", "many": True})
    label = LabelColumn(name="dwell", per="event", source="dwell")
    schema = schema.model_copy(update={"columns": (*schema.columns, device, tags), "labels": (label,)})
    assert [column.name for column in schema.side_features] == ["type", "price", "device", "tags"]
    schema.write(tmp_path / "schema.json")
    assert FeatureSchema.read(tmp_path / "schema.json") == schema


def test_a_schema_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    schema = schema_of(5)
    schema.write(tmp_path / "schema.json")
    text = (tmp_path / "schema.json").read_text().replace("vocabularies/item_id.parquet", "../../etc/x.parquet")
    (tmp_path / "schema.json").write_text(text)
    with pytest.raises(InputError, match="vocabulary"):
        FeatureSchema.read(tmp_path / "schema.json")
