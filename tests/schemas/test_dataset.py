"""The YAML of a dataset: short forms, answers to typos, where its files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.dataset import known, read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema
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
    features = "features: {price: {encode: [log1p, standardise]}, brand: {encode: category, min_count: 5}}\n"
    dataset = read_dataset(written(tmp_path, MINIMAL + steps + features))
    assert [(step.name, step.options) for step in dataset.steps] == [
        ("drop_repeats", {}),
        ("join_items", {"columns": ["price"]}),
    ]
    assert [step.name for step in dataset.features["price"].encode] == ["log1p", "standardise"]
    assert dataset.features["brand"].encode[0].options == {"min_count": 5}


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


def test_a_schema_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    schema = schema_of(5)
    schema.write(tmp_path / "schema.json")
    text = (tmp_path / "schema.json").read_text().replace("vocabularies/item_id.parquet", "../../etc/x.parquet")
    (tmp_path / "schema.json").write_text(text)
    with pytest.raises(InputError, match="vocabulary"):
        FeatureSchema.read(tmp_path / "schema.json")
