"""What a dataset's YAML says twice, or says in a way that leaves nothing, is refused with the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.dataset import load_dataset
from schemas.errors import InputError
from tests.preprocessing.small import dataset_of

HEAD = "name: shop\nevents:\n  path: events\n  columns: {user_id: u, item_id: i, timestamp: t}\n"


def load(folder: Path, text: str) -> Any:
    (folder / "d.yaml").write_text(text)
    return load_dataset(str(folder / "d.yaml"))


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("steps: [drop_repeats]\nsteps: []\n", 6, "steps"),
        ("features:\n  a: category\n  b: category\n  a: log1p\n", 8, "a"),
        ("steps:\n  - filter_event_types: {keep: [view], keep: [buy]}\n", 6, "keep"),
        ('name: "shop"\n', 5, "name"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(tmp_path: Path, text: str, line: int, key: str) -> None:
    with pytest.raises(InputError, match=rf"d.yaml, line {line}: the key '{key}' is there twice, first in line"):
        load(tmp_path, HEAD + text)


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    text = "features:\n  a: &usual {encode: category, min_count: 5}\n  b:\n    <<: *usual\n    min_count: 2\n"
    dataset = load(tmp_path, HEAD + text)
    assert [dataset.features[name].encode[0].options["min_count"] for name in "ab"] == [5, 2]


def test_what_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"duplicates.*\n.*names no column"):
        dataset_of("x", duplicates=[])
    with pytest.raises(ValueError, match="min_length 10 is above max_length 3"):
        dataset_of("x", sessions={"min_length": 10, "max_length": 3})
