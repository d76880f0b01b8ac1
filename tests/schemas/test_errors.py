"""What is said of a fault: the words for people, without those of libraries."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from modeling.evaluation.pointer import champion_of, pointer_of
from modeling.model import SequenceModel
from modeling.service.api.keys import Keys
from modeling.service.api.server import bound
from schemas.artifacts import Artifacts
from schemas.dataset import load_dataset
from schemas.errors import InputError, reason

NUMBERED = "[Errno"
YAML = "name: shop\nevents: {columns: {user_id: u, item_id: i, timestamp: t}}\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a.json"), "No such file or directory"),
        (
            OSError("[Errno 98] error while attempting to bind\n on address"),
            "error while attempting to bind on address",
        ),
        (ValueError("line 1 column 2"), "line 1 column 2"),
        (RuntimeError("No such file (os error 2): a"), "No such file: a"),
    ],
)
def test_reasons_have_no_numbers(error: Exception, words: str) -> None:
    assert reason(error) == words


@pytest.mark.parametrize(
    "text",
    [
        "sessions: {min_length: 9, max_length: 3}",
        "plugins: 7",
        "features: {9: category}",
        "split: leave_one_out\nsessions: {rule: given}",
        "time_zone: Berlin",
        "labels: [item_id]",
    ],
)
def test_checks_of_ours_speak_for_themselves(text: str, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(f"{YAML}{text}\n")
    with pytest.raises(InputError) as caught:
        load_dataset(str(tmp_path / "shop.yaml"))
    assert "Value error" not in str(caught.value) and "Assertion" not in str(caught.value)


def test_files_that_are_not_there_are_named_without_a_number(tmp_path: Path) -> None:
    said = []
    for ask in (
        lambda: SequenceModel.load(tmp_path / "model"),
        lambda: Keys(tmp_path / "keys").refresh(),
        lambda: bound("127.0.0.1", 1 << 20),
        lambda: bound("203.0.113.1", 8000),
    ):
        with pytest.raises(InputError) as caught:
            ask()
        said.append(str(caught.value))
    assert not any(NUMBERED in line for line in said), said
    assert "No such file or directory" in said[0] and str(tmp_path / "model") in said[0]


def test_a_pointer_that_breaks_a_rule_says_which(tmp_path: Path) -> None:
    path = pointer_of(Artifacts(tmp_path), "shop")
    path.mkdir(parents=True)
    with pytest.raises(InputError, match=r"is not a champion pointer \(Is a directory\)"):
        champion_of(Artifacts(tmp_path), "shop")
