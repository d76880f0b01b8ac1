"""A model folder says which parts it needs that are not built in, and never holds them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from flows.new import begin
from modeling.model import CONFIG, SequenceModel
from schemas.errors import InputError
from tests.conftest import model_of, random_sessions
from tests.schemas.own import part

KINDS = {"body": "bodies", "objective": "objectives", "loss": "losses"}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a body, an objective and a loss as they are begun."""
    for kind in KINDS:
        begin(kind, f"my_{kind}", tmp_path / "own")
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture
def folder(own: Path, tmp_path: Path) -> Path:
    """A model folder that needs them."""
    (tmp_path / "model").mkdir()
    model_of("my_body", objective="my_objective", loss="my_loss").save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_folder_records_its_own_parts_and_holds_no_code(own: Path, folder: Path) -> None:
    recorded = json.loads((folder / CONFIG).read_text())["own_parts"]
    assert {name: about["origin"] for name, about in recorded.items()} == {
        f"{kind}/my_{one}": str(own / kind / f"my_{one}.py") for one, kind in KINDS.items()
    }
    assert not [path for path in folder.rglob("*") if b"def forward" in path.read_bytes() or path.suffix == ".py"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SequenceModel.load(folder)


def test_the_same_parts_in_another_place_will_do(own: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = own.rename(own.with_name("moved"))
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(moved))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SequenceModel.load(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_part_is_named_with_where_it_came_from_and_what_to_do(own: Path, folder: Path, kind: str) -> None:
    path = own / KINDS[kind] / f"my_{kind}.py"
    path.unlink()
    content = json.loads((folder / CONFIG).read_text())["own_parts"][f"{KINDS[kind]}/my_{kind}"]["content"]
    with pytest.raises(InputError) as error:
        SequenceModel.load(folder)
    for words in (str(folder / CONFIG), f"the {kind} 'my_{kind}'", str(path), content, "OVERNIGHT_PLUGINS", "no code"):
        assert words in str(error.value)


@pytest.mark.parametrize("path", ["bodies/my_body.py", "bodies/_sizes.py", "losses/my_loss.py"])
def test_a_part_that_has_changed_is_warned_of(own: Path, folder: Path, path: str) -> None:
    file = own / path
    part(own, path, (file.read_text() if file.exists() else "") + "\nCHANGED = 1\n")
    with pytest.warns(UserWarning, match=f"not the one that this model was trained with.*{path.split('/')[0]}"):
        SequenceModel.load(folder)


def test_a_part_that_takes_the_place_of_a_built_in_one_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further model type of transformers may be given settings by a file of its name."""
    (tmp_path / "model").mkdir()
    model, sessions = model_of("opt"), random_sessions(3, 50)
    model.save(tmp_path / "model")
    text = (
        "from modeling.bodies._hugging_face import HuggingFace\n\n\nclass Opt(HuggingFace):\n    model_type = 'opt'\n"
    )
    part(tmp_path, "own/bodies/opt.py", text)
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(tmp_path / "own"))
    with pytest.warns(UserWarning, match="one that is built in, but .*own/bodies/opt.py"):
        again = SequenceModel.load(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(model.states(sessions), again.states(sessions))


def test_a_part_of_a_package_is_to_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin("body", "my_body", tmp_path / "own")
    text = (tmp_path / "own/bodies/my_body.py").read_text()
    for path, holds in (("corner_bodies/__init__.py", ""), ("corner_bodies/my_body.py", text)):
        part(tmp_path / "site", path, holds)
    about = "corner_parts-1.2.dist-info"
    part(tmp_path / "site", f"{about}/METADATA", "Metadata-Version: 2.1\nName: corner-parts\nVersion: 1.2\n")
    part(tmp_path / "site", f"{about}/entry_points.txt", "[overnight.bodies]\nmy_body = corner_bodies.my_body\n")
    (tmp_path / "model").mkdir()
    with monkeypatch.context() as with_package:
        with_package.syspath_prepend(str(tmp_path / "site"))
        model_of("my_body").save(tmp_path / "model")
        SequenceModel.load(tmp_path / "model")
    with pytest.raises(InputError, match=r"of corner-parts 1\.2, corner_bodies\.my_body .*Install corner-parts 1\.2"):
        SequenceModel.load(tmp_path / "model")


def test_folders_from_before_are_read(tmp_path: Path) -> None:
    model_of("sasrec").save(tmp_path)
    about = json.loads((tmp_path / CONFIG).read_text())
    assert about.pop("own_parts") == {}
    (tmp_path / CONFIG).write_text(json.dumps(about))
    SequenceModel.load(tmp_path)
