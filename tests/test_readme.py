"""The README keeps its word: its commands run, its YAML reads, what it adds works, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import torch

from flows.settings import offered
from modeling import bodies, losses
from preprocessing import encoders, steps
from schemas import plugins
from schemas.dataset import read_dataset
from tests.laws import test_bodies, test_models
from tests.preprocessing.small import COLUMNS, run, sessions_of, three_days, write

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# Set-up, this very test run, and a server that stays up (tests/flows/test_serve.py runs it).
NOT_RUN = {"make test", "make serve"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def test_every_command_runs_in_the_order_shown(tmp_path: Path) -> None:
    """In a folder of their own, with the shop and the artifacts of `make demo` beside them."""
    (tmp_path / "my-shop.yaml").write_text(blocks("yaml")[0])
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = []
    for command in commands():
        if command in NOT_RUN:
            continue
        words = shlex.split(command)
        if words[0] == "make":
            words += ["-C", str(ROOT), f"SHOP={tmp_path / 'demo-shop'}", f"ROOT={tmp_path / 'overnight-data'}"]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        ran.append(command)
    assert "make demo" in ran and len(ran) >= 12
    assert (tmp_path / "overnight-data" / "champions" / "my-shop.json").is_file()


def test_what_the_demo_printed_is_what_it_prints() -> None:
    shown = README.partition("<!-- demo -->")[2].partition("<!-- end of demo -->")[0]
    for words in ("sasrec", "popularity", "markov", "ndcg@20", "promote", "Report:", "In service: models/", "  ->  "):
        assert words in shown, words


def test_the_yaml_names_every_part_that_a_first_dataset_needs(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(blocks("yaml")[0])
    dataset = read_dataset(str(tmp_path / "shop.yaml"))
    assert dataset.name == "my-shop" and dataset.items and dataset.steps and dataset.features


def shown(package: ModuleType, name: str, code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the code defines, as a file of a package."""
    path = folder / package.__name__
    path.mkdir()
    (path / f"{name}.py").write_text(code)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(path)])
    return plugins.find(package, name)


def test_the_step_and_the_encoder_shown_are_found_and_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, test, encoder, *_ = blocks("python")
    known = {"pl": pl, "DropSamples": shown(steps, "drop_samples", step, tmp_path, monkeypatch)}
    shown(encoders, "share_of_mean", encoder, tmp_path, monkeypatch)
    exec(test, known)
    known["test_samples_are_dropped"]()  # type: ignore[operator]
    entry = re.findall(r"`- (drop_samples: \{.*?\})`", README)[0]
    feature = re.findall(r"`(price: \{encode: share_of_mean\})`", README)[0]
    columns = "{user_id: user_id, item_id: item_id, timestamp: timestamp, price: price}"
    text = f"name: shop\nevents: {{path: events.parquet, columns: {columns}}}\nsteps:\n  - {entry}\nfeatures:\n  {feature}\n"
    (tmp_path / "shop.yaml").write_text(text)
    rows = [(*row, price) for row, price in zip(three_days(), [0.5, 2.0, 4.0, 6.0, 8.0] * 3, strict=True)]
    write(tmp_path, rows, (*COLUMNS, "price"))
    manifest = run(tmp_path, read_dataset(str(tmp_path / "shop.yaml")).at(tmp_path))
    assert manifest.facts["dropped"]["drop_samples"] == 3
    assert sessions_of(manifest)["price"].to_list()[-1] == pytest.approx([4 / 6, 6 / 6, 8 / 6])


def test_the_body_shown_obeys_the_laws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, _, body, *_ = blocks("python")
    shown(bodies, "running_mean", body, tmp_path, monkeypatch)
    for law in vars(test_bodies).values():
        for direction in ("causal", "both"):
            if getattr(law, "__name__", "").startswith("test_"):
                law("running_mean", direction, False)
    for objective in ("causal", "masked", "replaced_token"):
        test_models.test_states_of_inference_do_not_depend_on_what_comes_next("running_mean", objective)
        test_models.test_every_parameter_gets_a_finite_gradient("running_mean", objective)
    test_models.test_the_loss_goes_down("running_mean", "masked", "full_softmax")
    test_models.test_a_learnable_chain_is_learned("running_mean", "causal", tmp_path / "run")
    told = {one["name"]: one for one in offered.for_models()["bodies"]}["running_mean"]
    assert told["summary"].startswith("Each event beside the mean") and told["options"][0]["name"] == "ff_multiple"


def test_the_loss_shown_is_found_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, loss, test = blocks("python")
    known = {"torch": torch, "hinge": shown(losses, "hinge", loss, tmp_path, monkeypatch)}
    exec(test, known)
    known["test_a_negative_counts_as_far_as_it_is_too_near"]()
    test_models.test_every_loss_learns_the_chain("hinge", tmp_path / "run")


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_layout_is_the_tree() -> None:
    for folder in re.findall(r"^(\w+)/ ", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
