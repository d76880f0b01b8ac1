"""People's own parts: found in folders that are named and in packages, loaded as they are now, refused with file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeling import bodies
from modeling.presets import known_presets
from preprocessing import checks, encoders, steps
from schemas import plugins
from schemas.dataset import Dataset, known, read_dataset
from schemas.errors import InputError
from tests.schemas.own import DATASET, STEP, package, part


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one step."""
    part(tmp_path / "mine", "steps/drop_samples.py", STEP)
    return tmp_path / "mine"


def test_a_folder_of_the_yaml_is_searched_from_where_the_yaml_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(DATASET + "plugins: mine\n")
    dataset = read_dataset(str(tmp_path / "shop.yaml"))
    assert dataset.plugins == (str(folder),)
    again = Dataset.model_validate_json(dataset.model_dump_json())  # as a worker elsewhere gets it
    step = plugins.find(steps, "drop_samples", again.plugins)
    assert step(min_price=2).min_price == 2
    assert step.__module__.rpartition(".")[2] == "drop_samples"
    assert "drop_samples" in plugins.names(steps)  # of the dataset read last
    (tmp_path / "other.yaml").write_text(DATASET)
    read_dataset(str(tmp_path / "other.yaml"))
    assert "drop_samples" not in plugins.names(steps)


def test_folders_of_the_environment_go_with_the_dataset(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part(tmp_path / "theirs", "checks/odd.py", "from preprocessing.checks import Check\nclass Odd(Check): ...\n")
    monkeypatch.setenv("OVERNIGHT_PLUGINS", os.pathsep.join([str(folder), "", str(tmp_path / "theirs"), str(folder)]))
    (tmp_path / "shop.yaml").write_text(DATASET + "plugins: [mine]\n")
    dataset = read_dataset(str(tmp_path / "shop.yaml"))
    assert dataset.plugins == (str(folder), str(tmp_path / "theirs"))
    monkeypatch.delenv("OVERNIGHT_PLUGINS")
    assert plugins.find(checks, "odd", dataset.plugins).__name__ == "Odd"


def test_folders_that_change_settings_are_seen_from_the_working_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_dataset("demo", {"plugins": "mine"}).plugins == (str(folder),)
    assert read_dataset("demo", {"plugins": None}).plugins == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", r"plugins: .*nowhere is no folder .* seen from the YAML's own folder: copy the folder"),
        ("empty", "holds none of the folders that are searched: steps, checks"),
        ("single", "a folder 'step', which nobody searches: call it 'steps'"),
        ("[mine, 3]", "plugins: .*give a folder or a list of folders"),
        ("{mine: 1}", "give a folder or a list of folders"),
        ("''", "give a folder or a list of folders"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused(folder: Path, tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    part(tmp_path / "single", "step/drop_samples.py", STEP)
    (tmp_path / "shop.yaml").write_text(DATASET + f"plugins: {given}\n")
    with pytest.raises(InputError, match=message):
        read_dataset(str(tmp_path / "shop.yaml"))


def test_a_folder_among_the_events_is_refused_and_one_that_nobody_named_is_not_searched(tmp_path: Path) -> None:
    part(tmp_path / "data" / "events", "steps/drop_samples.py", STEP)
    part(tmp_path / "data", "steps/drop_samples.py", STEP)
    (tmp_path / "shop.yaml").write_text(DATASET + "plugins: data/events\n")
    with pytest.raises(InputError, match="lies among the events"):
        read_dataset(str(tmp_path / "shop.yaml")).at(tmp_path / "data")
    (tmp_path / "plain.yaml").write_text(DATASET)
    dataset = read_dataset(str(tmp_path / "plain.yaml")).at(tmp_path / "data")
    assert "drop_samples" not in plugins.names(steps, dataset.plugins)


def test_names_that_are_there_twice_are_refused_with_both_places(folder: Path, tmp_path: Path) -> None:
    other = part(tmp_path / "other", "steps/drop_samples.py", STEP)
    with pytest.raises(InputError) as error:
        plugins.find(steps, "drop_samples", [folder, tmp_path / "other"])
    assert str(other) in str(error.value) and str(folder / "steps/drop_samples.py") in str(error.value)
    same = part(folder, "steps/drop_repeats.py", STEP.replace("DropSamples", "DropRepeats"))
    with pytest.raises(
        InputError, match=r"Two steps are called 'drop_repeats': .*preprocessing\.steps\.drop_repeats"
    ) as error:
        plugins.names(steps, [folder])
    assert str(same) in str(error.value)
    assert "drop_repeats" not in plugins.names(checks, [folder])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class DropSamples(Step:\n", r"drop_samples\.py, line 1: SyntaxError"),
        ("import polars\n\nimport not_installed\n", r"line 3: ModuleNotFoundError: No module named 'not_installed'"),
        ("def limit():\n    return 1 / 0\n\nlimit()\n", r"line 2: ZeroDivisionError"),
        ("raise SystemExit(3)\n", "line 1: SystemExit"),
        ("from ._prices import cheap\n", r"_prices\.py, line 2: NameError"),
        ("from preprocessing.steps import Step\n", r"expected a class DropSamples\(Step\), .*; it defines nothing"),
        (STEP.replace("DropSamples", "DropSample"), "it defines DropSample"),
        ("class DropSamples: ...\n", r"DropSamples must be a subclass of Step \(from preprocessing\.steps\)"),
        ("def drop_samples(): ...\n", "must be a subclass of Step"),
        (STEP.replace("min_price: float = 0.5", "min_price: flot = 0.5"), "(?s)drop_samples.py.*flot"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_reported_with_its_line(folder: Path, code: str, message: str) -> None:
    part(folder, "steps/_prices.py", "\ncheap = less_than(1)\n")
    part(folder, "steps/drop_samples.py", code)
    with pytest.raises(InputError, match=message):
        plugins.find(steps, "drop_samples", [folder])(min_price=1)


def test_a_file_is_loaded_as_it_is_now_and_its_content_is_hashed(folder: Path) -> None:
    assert plugins.find(steps, "drop_samples", [folder])().min_price == 0.5
    before = plugins.content(steps, "drop_samples", [folder])
    part(folder, "steps/drop_samples.py", STEP.replace("0.5", "0.7"))  # the same size, within the same second
    assert plugins.find(steps, "drop_samples", [folder])().min_price == 0.7
    after = plugins.content(steps, "drop_samples", [folder])
    assert len(before) == 16 and before != after
    assert plugins.content(steps, "drop_repeats", [folder]) == ""
    assert not list(folder.rglob("__pycache__"))


def test_files_that_begin_with_an_underscore_are_imported_and_count(folder: Path) -> None:
    part(folder, "steps/_prices.py", "CHEAP = 3.0\n")
    part(folder, "_all.py", "DEAR = 9.0\n")
    code = STEP.replace("import polars", "from .._all import DEAR\nfrom ._prices import CHEAP\nimport polars")
    part(folder, "steps/drop_samples.py", code.replace("0.5", "CHEAP"))
    assert plugins.find(steps, "drop_samples", [folder])().min_price == 3
    before = plugins.content(steps, "drop_samples", [folder])
    part(folder, "steps/_prices.py", "CHEAP = 4.0\n")
    assert plugins.find(steps, "drop_samples", [folder])().min_price == 4
    assert plugins.content(steps, "drop_samples", [folder]) != before
    assert "_prices" not in plugins.names(steps, [folder])


def test_a_name_no_yaml_can_hold_is_refused(folder: Path) -> None:
    part(folder, "steps/drop-dear.py", STEP)
    with pytest.raises(InputError, match=r"drop-dear\.py: a name is made of letters"):
        plugins.names(steps, [folder])


def test_an_unknown_name_says_where_own_parts_are_found(folder: Path) -> None:
    with pytest.raises(InputError, match=f"Did you mean 'drop_samples'.*Searched.*{folder}"):
        plugins.find(steps, "drop_sample", [folder])
    with pytest.raises(InputError, match="`plugins:` in the dataset's YAML or OVERNIGHT_PLUGINS"):
        plugins.find(steps, "drop_sample", [])


def test_what_a_dataset_is_made_with(folder: Path, tmp_path: Path) -> None:
    part(folder, "encoders/halve.py", "from preprocessing.encoders import Encoder\nclass Halve(Encoder): ...\n")
    part(folder, "checks/odd.py", "from preprocessing.checks import Check\nclass Odd(Check): ...\n")
    text = "plugins: mine\nsteps: [drop_repeats, drop_samples]\nfeatures: {price: {encode: [halve, log1p]}}\n"
    (tmp_path / "shop.yaml").write_text(DATASET + text)
    dataset = read_dataset(str(tmp_path / "shop.yaml"))
    assert dataset.own_parts() == {
        "steps/drop_samples": plugins.content(steps, "drop_samples", [folder]),
        "encoders/halve": plugins.content(encoders, "halve", [folder]),
    }


def test_datasets_and_presets_of_a_folder_are_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part(folder, "datasets/corner-shop.yaml", DATASET + "plugins: ..\n")
    part(folder, "presets/tiny.yaml", "title: Tiny\npaper: 'arXiv:1234.56789'\ndeviates: [all of it]\n")
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(folder))
    assert known()["corner-shop"].origin == str(folder / "datasets/corner-shop.yaml")
    assert read_dataset("corner-shop").plugins == (str(folder),)
    assert "tiny" in known_presets()


def test_parts_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, steps="drop_samples = corner.steps.drop_samples", datasets="corner = corner.data")
    monkeypatch.syspath_prepend(str(tmp_path))
    described = {one.name: one for one in plugins.describe(steps, [])}["drop_samples"]
    assert described.origin == "corner-parts 1.2, corner.steps.drop_samples"
    assert plugins.find(steps, "drop_samples", [])().min_price == 0.5
    assert len(plugins.content(steps, "drop_samples", [])) == 16
    assert read_dataset("corner").name == "corner-shop"
    part(tmp_path / "mine", "steps/drop_samples.py", STEP)
    with pytest.raises(InputError, match=r"Two steps .*mine/steps/drop_samples\.py and corner-parts 1\.2"):
        plugins.find(steps, "drop_samples", [tmp_path / "mine"])


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("cheap = corner.steps.drop_samples", "must be called cheap, too"),
        ("drop_samples = corner.nothing.drop_samples", "corner-parts 1.2.*ModuleNotFoundError"),
        ("drop_samples = corner.steps.drop_samples:Nothing", "expected a class DropSamples"),
        ("drop_repeats = corner.steps.drop_samples", "Two steps are called 'drop_repeats'"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, message: str
) -> None:
    package(tmp_path, steps=point)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=message):
        plugins.find(steps, point.partition(" ")[0], [])


def test_a_class_of_a_package_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, steps="drop_samples = corner.steps.drop_samples:DropSamples")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.find(steps, "drop_samples", [])().min_price == 0.5


def test_no_own_part_is_imported_where_torch_is_not_needed(folder: Path) -> None:
    part(folder, "bodies/broken.py", "raise RuntimeError\n")
    assert "broken" in plugins.names(bodies, [folder])
