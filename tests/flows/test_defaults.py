"""The `defaults` of a dataset's file are replaced in its text, and nothing else is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from flows.settings.defaults import SHIPPED, block, file_of, replaced, write
from schemas.errors import InputError

NEW = {
    "body": {"name": "gru4rec", "dim": 48},
    "training": {"learning_rate": 1e-05, "order": "time"},
    "loss": {"name": "gbce"},
}
TOP = "name: shop   # its name\nevents: {path: events}\n\n"
BELOW = "\n# of the split\nsplit: day  # by days\n"


@pytest.mark.parametrize(
    ("before", "lost"),
    [
        (
            "defaults:                          # settings that suit\n  body: {dropout: 0.1}\n  training: {epochs: 9}\n",
            3,
        ),
        ("defaults: {body: {dropout: 0.1}, training: {epochs: 9}}\n", 1),
        ("defaults:\n  body:\n    dropout: 0.1\n    # more of it\n    dim: 3 # wide\n  heads:\n    - 1\n    - 2\n", 8),
        ("defaults:\n", 1),
        ("defaults: {}\n", 1),
        ("defaults:\n  loss: gbce\n", 2),
        ("'defaults':\n  loss: >-\n    gbce\n", 3),
        ("defaults:\n  loss: [a,\n    b]\n", 3),
        ("defaults: &known\n  loss: gbce\n", 2),
    ],
)
@pytest.mark.parametrize(("top", "below"), [(TOP, BELOW), (TOP, ""), ("", BELOW), ("---\n" + TOP, "")])
def test_every_other_line_stays(before: str, lost: int, top: str, below: str) -> None:
    text = replaced(top + before + below, NEW, ["Chosen today."], "shop.yaml")
    assert text.startswith(top) and text.endswith(below)
    written = text[len(top) : len(text) - len(below)]
    assert written.startswith("# ") and yaml.safe_load(written) == {"defaults": NEW}
    assert yaml.safe_load(text) == yaml.safe_load(top + "defaults: {}\n" + below) | {"defaults": NEW}
    assert ("# more of it" in written) == ("# more of it" in before)
    assert "# Chosen today.\ndefaults:\n  body: {name: gru4rec, dim: 48}\n" in written
    assert len((top + before + below).splitlines()) - lost == len((top + below).splitlines())


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_a_file_without_any_gets_them_at_its_end(end: str) -> None:
    text = replaced("name: shop" + end, NEW, [], "shop.yaml")
    assert text.startswith("name: shop\n") and yaml.safe_load(text) == {"name": "shop", "defaults": NEW}


def test_lines_end_as_they_did(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_bytes("name: köln\r\ndefaults:\r\n  loss: gbce\r\nsplit: day\r\n".encode())
    file.chmod(0o640)
    write(file, NEW, ["Chosen."])
    text = file.read_bytes().decode()
    assert text.startswith("name: köln\r\n") and text.endswith("\r\nsplit: day\r\n")
    assert text.count("\n") == text.count("\r\n") and file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "text",
    ["defaults: &mine {loss: gbce}\nother: *mine\n", "name: a\n...\n", "{name: a, defaults: {loss: gbce}}\n", "- a\n"],
)
def test_where_more_would_change_nothing_is_written(tmp_path: Path, text: str) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match="cannot be replaced without changing more; paste what is printed"):
        write(file, NEW, [])
    assert file.read_text() == text


def test_numbers_and_words_are_read_again_as_they_were() -> None:
    given = {"training": {"learning_rate": 1e-05, "order": "on", "half_life_days": None}, "heads": {"next_item": {}}}
    assert yaml.safe_load(block(given, ["a: b # c"]))["defaults"] == given


def test_every_shipped_dataset_could_be_written(tmp_path: Path) -> None:
    for shipped in sorted(SHIPPED.glob("*.yaml")):
        shutil.copy(shipped, tmp_path)
        before = shipped.read_text()
        write(tmp_path / shipped.name, NEW, ["Chosen."])
        after = (tmp_path / shipped.name).read_text()
        kept = [line for line in after.splitlines() if line in before.splitlines()]
        old = before.partition("\ndefaults:")[0].splitlines()
        assert kept[: len(old)] == old, shipped


def test_only_files_of_ones_own_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"demo came with Overnight.*Copy .*datasets/demo\.yaml to a folder"):
        file_of("demo")
    with pytest.raises(InputError, match=r"nowhere\.yaml cannot be written \(No such file"):
        file_of(str(tmp_path / "nowhere.yaml"))
    own = tmp_path / "plugins" / "datasets" / "corner.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("name: corner\n")
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(tmp_path / "plugins"))
    assert file_of("corner") == own
    link = tmp_path / "link.yaml"
    link.symlink_to(own)
    assert file_of(str(link)) == own, "a link stays a link"
