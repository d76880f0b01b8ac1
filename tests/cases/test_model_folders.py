"""A model folder that lost something or was written by other code is named, with the file; nothing ends in a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling.service.recommender import Recommender
from schemas.errors import InputError
from tests.modeling.test_inputs import items_of, model_of

DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "other": lambda _: b"\xff\xfe\0",
}
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that nobody trained."""
    folder = tmp_path_factory.mktemp("model")
    model_of().save(folder)
    items_of().write_parquet(folder / "items.parquet")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


def rewrite(folder: Path, change: Change) -> None:
    about = json.loads((folder / "config.json").read_text())
    change(about)
    (folder / "config.json").write_text(json.dumps(about))


@pytest.mark.parametrize("damage", [*DAMAGE, "gone", "null"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "items.parquet"])
def test_a_damaged_file_is_named(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"null" if damage == "null" else DAMAGE[damage](path.read_bytes()))
    with pytest.raises(InputError, match=str(folder)):
        Recommender(folder, "cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda about: about.update(longest="x"), "longest: .* got 'x'"),
        (lambda about: about.update(longest=0), "longest: .* got 0"),
        (lambda about: about.pop("schema"), "schema is required"),
        (lambda about: about.update(model=None), "model: .* got None"),
        (lambda about: about.update(own_parts=[]), "own_parts: "),
        (lambda about: about["schema"].update(columns=[]), "columns: .* at least 1"),
        (lambda about: about["model"].update(later=1), "Unknown key 'later'"),
    ],
)
def test_what_a_configuration_cannot_hold_is_said(folder: Path, change: Change, words: str) -> None:
    rewrite(folder, change)
    with pytest.raises(InputError, match=rf"{folder / 'config.json'}: .*{words}"):
        Recommender(folder, "cpu")


@pytest.mark.parametrize("key", ["longest", "own_parts"])
@pytest.mark.parametrize("how", ["missing", "null"])
def test_an_older_folder_that_does_not_say_is_read(folder: Path, key: str, how: str) -> None:
    rewrite(folder, lambda about: about.pop(key) if how == "missing" else about.update({key: None, "newer": 1}))
    recommender = Recommender(folder, "cpu")
    assert recommender.model.longest >= 1 and recommender.items.height
