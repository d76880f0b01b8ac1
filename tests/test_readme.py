"""README and the pages with commands keep their word: commands run, YAML reads, what is added works, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows.check import check_folder
from flows.new import begin
from flows.settings import listing
from schemas import plugins
from schemas.dataset import read_dataset
from tests.flows.conftest import begun, night_here, overnight_here
from tests.flows.conftest import folder_of_all_processes as folder_of_all_processes
from tests.laws import test_models
from tests.preprocessing.small import COLUMNS, run, sessions_of, three_days, write
from tests.schemas.own import tried
from tests.slow import SLOW

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# In the order in which their commands run.
PAGES = ("README.md", "docs/recommending.md", "docs/events.md", "docs/comparing.md", "docs/parts.md")
TEXT = "\n".join((ROOT / page).read_text() for page in PAGES)
# Set-up, this very test run, and a server that stays up (tests/flows/test_serve.py runs it).
NOT_RUN = {"make test", "make serve"}
# Of the 2,000 users of the demo, and a night that trains less: no command takes other ways for them.
FEW, SHORT = "SIMULATE=--users 100", "--set=training.epochs=1"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command that is shown, once."""
    return list(dict.fromkeys(line for block in blocks("sh") for line in block.splitlines() if line.strip()))


def codes() -> dict[str, str]:
    """The code of each part that is shown, by its path below `plugins`."""
    return dict(re.findall(r"`plugins/(\S+\.py)`[^`]*?:\n\n```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))


def done_by(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in the working folder; in this process, which has torch loaded, where it needs neither Prefect nor workers."""
    if words[0] == "overnight" and words[1] != "backfill" and "--workers" not in words and not SLOW:
        return night_here(*words[2:], SHORT) if words[1] == "retrain" else overnight_here(*words[1:])
    if words[0] == "make":
        words = [*words, "-C", str(ROOT), f"SHOP={folder / 'demo-shop'}", f"ROOT={folder / 'overnight-data'}"]
        words += [] if SLOW else [FEW]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=3600)


def serve_newest(dataset: str) -> None:
    """Of so few users not every model is better than what is popular."""
    if not Path(f"overnight-data/champions/{dataset}.json").is_file():
        newest = max(Path("overnight-data/models").iterdir(), key=lambda path: path.stat().st_mtime)
        done = overnight_here("promote", f"models/{newest.name}", "--dataset", dataset)
        assert done.returncode == 0, done.stderr


def test_every_command_runs_in_the_order_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of their own, with the shop and the artifacts of `make demo` in it."""
    monkeypatch.chdir(tmp_path)
    for name, text in zip(("my-shop", "corner-shop"), blocks("yaml"), strict=True):
        Path(f"{name}.yaml").write_text(text)
    begun(tmp_path / "overnight-data")
    ran = []
    for command in commands():
        if command in NOT_RUN:
            continue
        done = done_by(shlex.split(command), tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if command == "overnight new encoder share_of_mean":  # as it is shown from here on
            for path in ("steps/drop_samples.py", "tests/test_drop_samples.py"):
                Path("plugins", path).write_text(codes()[path])
        if not SLOW and (command == "make demo" or command.startswith("overnight retrain")):
            serve_newest("demo" if command == "make demo" else "my-shop")
        ran.append(command)
    assert "make demo" in ran and len(ran) >= 12
    assert Path("overnight-data/champions/my-shop.json").is_file()


def test_what_the_demo_printed_is_what_it_prints() -> None:
    shown = README.partition("<!-- demo -->")[2].partition("<!-- end of demo -->")[0]
    for words in ("sasrec", "popularity", "markov", "ndcg@20", "promote", "Report:", "In service: models/", "  ->  "):
        assert words in shown, words


def test_the_yaml_names_every_part_that_a_first_dataset_needs(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(blocks("yaml")[0])
    dataset = read_dataset(str(tmp_path / "shop.yaml"))
    assert dataset.name == "my-shop" and dataset.items and dataset.steps and dataset.features


def shown(folder: Path) -> list[str]:
    """Begin each part that the pages begin, then write into its file what they show: the paths written."""
    for line in commands():
        if line.startswith("overnight new "):
            kind, name = line.split()[2:]
            begin(kind, name, folder)
    for path, code in codes().items():
        assert (folder / path).is_file(), path
        (folder / path).write_text(code)
    return list(codes())


def test_the_parts_shown_keep_the_laws_and_pass_their_tests(tmp_path: Path) -> None:
    written = shown(tmp_path / "plugins")
    assert written == [
        "losses/hinge.py",
        "steps/drop_samples.py",
        "tests/test_drop_samples.py",
        "encoders/share_of_mean.py",
        "bodies/running_mean.py",
        "bodies/my_llama.py",
    ]
    assert len(written) == len(blocks("python"))
    verdict = check_folder(tmp_path / "plugins", say=lambda line: None)
    assert not verdict.broken and not verdict.not_tried and len(verdict.kept) == 5
    code, said = tried(tmp_path / "plugins")
    assert code == 0 and "5 passed" in said, said


def test_the_step_and_the_encoder_shown_work(tmp_path: Path) -> None:
    shown(tmp_path / "plugins")
    (tmp_path / "shop.yaml").write_text(blocks("yaml")[1].replace("path: events", "path: events.parquet"))
    rows = [(*row, price) for row, price in zip(three_days(), [0.5, 2.0, 4.0, 6.0, 8.0] * 3, strict=True)]
    write(tmp_path, rows, (*COLUMNS, "price"))
    manifest = run(tmp_path, read_dataset(str(tmp_path / "shop.yaml")).at(tmp_path))
    assert manifest.facts["dropped"]["drop_samples"] == 3
    assert sessions_of(manifest)["price"].to_list()[-1] == pytest.approx([4 / 6, 6 / 6, 8 / 6])


def test_the_body_and_the_loss_shown_learn(tmp_path: Path) -> None:
    shown(tmp_path / "plugins")
    plugins.use([tmp_path / "plugins"])
    test_models.test_a_learnable_chain_is_learned("running_mean", "causal", tmp_path / "body")
    test_models.test_every_loss_learns_the_chain("hinge", tmp_path / "loss")
    described = {entry["name"]: entry for entry in listing.for_models()["bodies"]}["running_mean"]
    assert (
        described["summary"].startswith("Each event and the mean") and described["options"][0]["name"] == "ff_multiple"
    )


def test_links_and_pictures_are_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    """Through a page that the README names, at most."""
    linked = set(re.findall(r"\]\(docs/([^)#]+\.md)\)", README))
    further = {t for page in linked for t in re.findall(r"\]\((\w+\.md)[)#]", (ROOT / "docs" / page).read_text())}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= linked | further


def test_the_layout_is_the_tree() -> None:
    for folder in re.findall(r"^(\w+)/ ", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
