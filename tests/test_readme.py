"""The README keeps its word: its commands run, its YAML reads, its step works, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import preprocessing.steps
from schemas.dataset import read_dataset

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
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        ran.append(command)
    assert "make demo" in ran and len(ran) >= 5
    assert (tmp_path / "overnight-data" / "champions" / "my-shop.json").is_file()


def test_what_the_demo_printed_is_what_it_prints() -> None:
    shown = README.partition("<!-- demo -->")[2].partition("<!-- end of demo -->")[0]
    for words in ("sasrec", "popularity", "markov", "ndcg@20", "promote", "Report:", "In service: models/", "  ->  "):
        assert words in shown, words


def test_the_yaml_names_every_part_that_a_first_dataset_needs(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(blocks("yaml")[0])
    dataset = read_dataset(str(tmp_path / "shop.yaml"))
    assert dataset.name == "my-shop" and dataset.items and dataset.steps and dataset.features


def test_the_step_shown_is_found_and_drops_crawlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python")
    (tmp_path / "drop_crawlers.py").write_text(code)
    monkeypatch.setattr(preprocessing.steps, "__path__", [*preprocessing.steps.__path__, str(tmp_path)])
    entry = re.findall(r"`- (drop_crawlers: \{.*?\})`", README)[0]
    base = yaml_with_step(tmp_path, entry)
    ((_, step),) = preprocessing.steps.build_steps(read_dataset(str(base)))
    events = pl.LazyFrame({"user_id": ["a"] * 501 + ["b"] * 500, "item_id": ["x"] * 1001})
    assert step.apply(events).collect()["user_id"].unique().to_list() == ["b"]


def yaml_with_step(folder: Path, entry: str) -> Path:
    path = folder / "shop.yaml"
    path.write_text(f"name: shop\nevents: {{columns: {{user_id: u, item_id: i, timestamp: t}}}}\nsteps:\n  - {entry}\n")
    return path


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_layout_is_the_tree() -> None:
    for folder in re.findall(r"^(\w+)/ ", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
