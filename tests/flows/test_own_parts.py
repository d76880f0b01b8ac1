"""`overnight new` begins parts that work, `overnight check` says what parts break, listings say where parts come from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.check import check_folder
from flows.cli import app
from flows.new import begin
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.places import KINDS, singular
from tests.flows.conftest import overnight_here
from tests.schemas.own import DATASET, STEP, part, tried

ALL = [(singular(kind), f"my_{singular(kind)}") for kind in KINDS]


def invoke(*arguments: str | Path) -> tuple[int, str, dict[str, Any]]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    *lines, last = done.output.splitlines() or ["{}"]
    return done.exit_code, "\n".join(lines), json.loads(last) if last.startswith("{") else {}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one part of every kind, as begun."""
    folder = tmp_path_factory.mktemp("own") / "plugins"
    for kind, name in ALL:
        begin(kind, name, folder)
    return folder


def test_what_is_begun_passes_its_tests(begun: Path) -> None:
    code, said = tried(begun)
    assert code == 0 and f"{len(ALL)} passed" in said, said


def test_what_is_begun_keeps_every_law(begun: Path) -> None:
    code, text, verdict = invoke("check", begun)
    assert code == 0 and verdict["broken"] == {} and verdict["not_tried"] == {}, text
    assert len(verdict["kept"]) == len(ALL) and "10 parts in" in text


def test_what_is_begun_is_listed_with_where_it_comes_from(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (begun.parent / "shop.yaml").write_text(DATASET + "plugins: plugins\n")
    _, text, found = invoke("steps", "--dataset", begun.parent / "shop.yaml")
    origins = {one["name"]: one["origin"] for kind in found.values() for one in kind}
    assert origins["my_step"] == str(begun / "steps/my_step.py") and origins["drop_repeats"] == "built in"
    assert origins["my_check"] and origins["my_encoder"] and f"      from: {begun / 'steps/my_step.py'}" in text
    read_dataset("demo")  # another dataset: its folders are searched no more
    assert "my_step" not in invoke("steps")[1]
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(begun))
    _, _, models = invoke("models")
    for kind in ("presets", "bodies", "objectives", "losses", "heads", "baselines"):
        assert any(one["origin"].startswith(str(begun / kind)) for one in models[kind]), kind
    assert invoke("datasets")[2]["my_dataset"]["origin"] == str(begun / "datasets/my_dataset.yaml")


def test_what_cannot_be_used_is_listed_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, text in (
        ("steps/broken.py", "x = (\n"),
        ("bodies/broken.py", "import nothing_of_that_name\n"),
        ("losses/broken.py", ""),
        ("objectives/broken.py", "class Broken: ...\n"),
        ("presets/broken.yaml", "title: 3\n"),
        ("datasets/broken.yaml", "name: [\n"),
    ):
        part(tmp_path, path, text)
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(tmp_path))
    _, text, steps = invoke("steps")
    assert "broken: cannot be used: " in text and "broken.py, line 1: SyntaxError" in text and "drop_repeats" in text
    code, _, models = invoke("models")
    messages = {kind: entry["summary"] for kind, some in models.items() for entry in some if entry["name"] == "broken"}
    assert code == 0 and messages.keys() == {"bodies", "losses", "objectives", "presets"}
    assert "nothing_of_that_name" in messages["bodies"] and "expected a class Broken" in messages["losses"]
    assert "cannot be used" in invoke("datasets")[2]["broken"]["title"]
    assert len(steps["steps"]) > 5


def test_new_says_what_to_write_and_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, text, facts = invoke("new", "step", "drop_samples")
    assert code == 0 and facts["file"] == "plugins/steps/drop_samples.py"
    for words in (
        "plugins: plugins",
        "  - drop_samples: {lowest: 1}",
        "overnight check plugins",
        "pytest plugins/tests",
    ):
        assert words in text
    (tmp_path / "shop.yaml").write_text(DATASET + facts["yaml"] + "\n")
    assert read_dataset("shop.yaml").steps[0].name == "drop_samples"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("stepp", "x", "Unknown kind 'stepp'. Did you mean 'step'"),
        ("step", "drop-samples", "a name is made of"),
        ("step", "Drop", "a name is made of"),
        ("step", "class", "no word of Python"),
        ("step", "_x", "begins with a letter"),
        ("step", "../x", "a name is made of"),
        ("dataset", "my shop", "a name is made of"),
        ("step", "drop_repeats", r"a step 'drop_repeats' already: built in \(drop_repeats\)"),
        ("preset", "sasrec", "a preset 'sasrec' already: built in"),
        ("step", "there", "is there already"),
        ("encoder", "there", "test_there.py is there already"),
    ],
)
def test_new_refuses_names_and_never_overwrites(tmp_path: Path, kind: str, name: str, message: str) -> None:
    begin("step", "there", tmp_path)
    part(tmp_path, "steps/there.py", "# mine\n")
    with pytest.raises(InputError, match=message):
        begin(kind, name, tmp_path)
    assert (tmp_path / "steps/there.py").read_text() == "# mine\n"


def test_check_says_what_parts_break(tmp_path: Path) -> None:
    part(
        tmp_path,
        "steps/drop_samples.py",
        STEP.replace('pl.col("price") >= self.min_price', "pl.len().over('item_id') > 6"),
    )
    part(tmp_path, "steps/unreadable.py", "class Unreadable(\n")
    part(tmp_path, "steps/fails.py", STEP.replace("DropSamples", "Fails").replace("events.filter", "events.no_such"))
    part(tmp_path, "steps/needs.py", STEP.replace("DropSamples", "Needs").replace("float = 0.5", "float"))
    part(tmp_path, "checks/mean.py", MEAN)
    part(tmp_path, "encoders/today.py", TODAY)
    part(tmp_path, "datasets/shop.yaml", DATASET + "stepz: []\n")
    code, text, verdict = invoke("check", tmp_path)
    assert code == 1
    messages = {name: " ".join(lines) for name, lines in verdict["broken"].items()}
    assert "Events of other users change nothing" in messages["steps/drop_samples"]
    assert "unreadable.py, line 1: SyntaxError" in messages["steps/unreadable"]
    assert "fails.py, line 14: AttributeError" in messages["steps/fails"]
    assert "it gives one for all" in messages["checks/mean"]
    assert "other events of the same day change nothing" in messages["encoders/today"]
    assert "Did you mean 'steps'" in messages["datasets/shop"]
    assert "min_price must be given" in verdict["not_tried"]["steps/needs"]
    assert "steps/drop_samples: breaks\n  - " in text and "Traceback" not in text


def test_check_takes_options_and_columns_of_a_dataset(tmp_path: Path) -> None:
    part(tmp_path, "plugins/steps/needs.py", STEP.replace("DropSamples", "Needs").replace("float = 0.5", "float"))
    (tmp_path / "shop.yaml").write_text(DATASET + "plugins: plugins\nsteps:\n  - needs: {min_price: 2}\n")
    verdict = check_folder(tmp_path / "plugins", str(tmp_path / "shop.yaml"), lambda line: None)
    assert verdict.kept == ["steps/needs"] and not verdict.broken
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "events").mkdir()
    rows = "user_id,item_id,timestamp,price\na,x,2024-01-01 10:00:00,4.5\n"
    (tmp_path / "data" / "events" / "one.csv").write_text(rows)
    where = (tmp_path / "plugins", str(tmp_path / "shop.yaml"), lambda line: None, str(tmp_path / "data"))
    assert check_folder(*where).kept == ["steps/needs"]
    rows = "user_id,item_id,timestamp,price\na,x,2024-01-01 10:00:00,dear\n"
    (tmp_path / "data" / "events" / "one.csv").write_text(rows)
    verdict = check_folder(*where)  # a price that is text
    assert not verdict.kept and (verdict.broken or verdict.not_tried)


def test_check_takes_options_of_models_from_a_dataset(tmp_path: Path) -> None:
    """Those that must be given are in its defaults, for every kind of part."""
    for path, option in (("bodies/my_body.py", "ff_multiple"), ("losses/my_loss.py", "margin")):
        kind = path.partition("/")[0]
        file = begin(kind, f"my_{singular(kind)}", tmp_path / "plugins").file
        file.write_text(re.sub(rf"({option}: .*?\)\]) = [\d.]+,", r"\1,", file.read_text(), flags=re.DOTALL))
    say = lambda line: None  # noqa: E731
    assert check_folder(tmp_path / "plugins", say=say).not_tried.keys() == {"bodies/my_body", "losses/my_loss"}
    for margin, kept in ((1.5, 2), (-1, 1)):
        defaults = f"body: {{name: my_body, ff_multiple: 2}}\n  loss: {{name: my_loss, margin: {margin}}}"
        (tmp_path / "shop.yaml").write_text(DATASET + f"plugins: plugins\ndefaults:\n  {defaults}\n")
        verdict = check_folder(tmp_path / "plugins", str(tmp_path / "shop.yaml"), say)
        assert len(verdict.kept) == kept and not verdict.not_tried
        assert kept == 2 or "margin" in verdict.broken["losses/my_loss"][0]


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_check_refuses_what_is_no_folder_of_parts(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    done = overnight_here("check", tmp_path / folder)
    assert done.returncode == 2 and "overnight: plugins: " in done.stderr and "Traceback" not in done.stderr


MEAN = """
import polars as pl
from preprocessing.checks import Check


class Mean(Check):
    @property
    def looks_at(self):
        return ("price",)

    def bad(self, now):
        return pl.col("price").mean() > 1
"""
TODAY = """
from preprocessing.encoders import Encoder


class Today(Encoder):
    def add_columns(self, events, value, name):
        return events, value / value.mean().over("day")
"""
