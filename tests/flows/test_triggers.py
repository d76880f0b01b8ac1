"""Which new files start a night, and when. tests/flows/test_serve.py has a server start it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flows.triggers import Watch, key_of, listing, name_of
from schemas.dataset import read_dataset
from schemas.errors import InputError


def line(path: str, size: int = 1, stamp: str = "0") -> str:
    return json.dumps([path, size, stamp])


def test_files_are_due_when_none_has_changed_for_a_while(tmp_path: Path) -> None:
    a, b, longer = line("a"), line("b"), line("b", 2)
    watch = Watch(tmp_path / "watched" / "nightly.json")
    assert watch.look({a}, 0.0, 60) == set()  # the first listing of all
    assert watch.look({a, b}, 10.0, 60) == set()
    assert watch.look({a, longer}, 50.0, 60) == set()  # it is still being written
    assert watch.look({a, longer}, 109.0, 60) == set()
    assert watch.look({a, longer}, 110.0, 60) == {longer}
    again = Watch(watch.file)  # killed before it was kept: the same files, and so the same key
    again.look({a, longer}, 0.0, 60)
    assert key_of(again.look({a, longer}, 60.0, 60)) == key_of({longer})
    again.keep({a, longer})
    later = Watch(watch.file)
    assert later.look({a, longer}, 0.0, 0) == set()
    assert later.look({longer}, 1.0, 0) == set()  # files that are removed are no reason
    assert later.look({longer, a}, 2.0, 0) == {a}


def test_every_change_of_a_file_is_seen_and_a_source_that_is_away_is_no_empty_one(shop: Path, tmp_path: Path) -> None:
    source = shutil.copytree(shop, tmp_path / "shop")
    dataset = read_dataset("demo").at(source)
    before = listing(dataset)
    assert len(before) == 5  # four days and the items
    (source / "items.parquet").touch()
    assert len(listing(dataset) - before) == 1
    shutil.copy(source / "events" / "2026-03-02.parquet", source / "events" / "2026-02-27.parquet")
    new = listing(dataset) - before
    assert name_of(new) == "new files: events/2026-02-27.parquet, items.parquet"
    assert name_of({line(name) for name in "dcba"}) == "new files: a, b, c and 1 more"
    shutil.rmtree(source)
    with pytest.raises(InputError):
        listing(dataset)
