"""overnight verify: what it finds, what --mend mends, and whether its advice helps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.ledgers import mend_manifests
from flows.verify import Finding, mend_snapshots, verify
from schemas.artifacts import MANIFEST, Artifacts
from schemas.dataset import Dataset
from tests.cases.test_finished_days import first, nightly, put, shop, visits
from tests.preprocessing.small import run


def quiet(report: object) -> None:
    """Say nothing."""


def mended(folder: Path, dataset: Dataset) -> list[Finding]:
    """What is still wrong after `overnight verify --mend`."""
    artifacts = Artifacts(folder / "artifacts")
    mend_snapshots(artifacts, quiet)
    run(folder, dataset, verify=True)
    mend_manifests(artifacts, quiet)
    return verify(artifacts, quiet)


def test_a_lost_manifest_of_a_day_is_written_anew(tmp_path: Path) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    artifacts = Artifacts(before.root)
    assert verify(artifacts, quiet) == []
    day = artifacts.get(before.parents[1])
    (day.folder / MANIFEST).unlink()
    (finding,) = verify(artifacts, quiet)
    assert finding.place == day.name and "verify --mend" in finding.help
    assert mended(tmp_path, shop(tmp_path)) == []
    again = artifacts.get(day.name, contents=True)
    assert (again.facts, again.files) == (day.facts, day.files)
    assert run(tmp_path, shop(tmp_path)).id == before.id


@pytest.mark.fault("the folder of a finished day is lost", outcome="`overnight verify --mend` puts it back")
def test_a_lost_folder_of_a_day_comes_back_with_its_manifest(tmp_path: Path) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    shutil.rmtree(Path(before.root) / before.parents[1])
    assert mended(tmp_path, shop(tmp_path)) == []
    shutil.rmtree(Path(before.root) / before.parents[1])
    shutil.rmtree(tmp_path / "events")
    put(tmp_path, "6", visits(6))
    findings = mended(tmp_path, shop(tmp_path))
    assert {Path(finding.place).name for finding in findings} == {"open.parquet", "profile.parquet", "rows.parquet"}
    assert all("backup" in finding.help for finding in findings)


def test_advice_is_to_remove_what_nothing_needs(tmp_path: Path) -> None:
    nightly(tmp_path)
    old = run(tmp_path, shop(tmp_path))
    put(tmp_path, "late", visits(1, "late", 9))
    new = run(tmp_path, shop(tmp_path))
    root = Path(new.root)
    lost = (set(old.parents) - set(new.parents)).pop()
    (root / lost / "sessions.parquet").unlink()
    (old.folder / "items.parquet").unlink()
    (new.folder / "items.parquet").unlink()
    advice = {finding.place.rpartition("/")[0]: finding.help for finding in verify(Artifacts(root), quiet)}
    assert "remove the folder" in advice[lost] and "verify" not in advice[lost]
    assert "nothing makes it again" in advice[old.name]
    assert f"overnight prepare --until {first(4)} makes it again" in advice[new.name]
    assert run(tmp_path, shop(tmp_path), until=first(4)).id == new.id
    shutil.rmtree(root / lost)
    shutil.rmtree(old.folder)
    assert verify(Artifacts(root), quiet) == []


def test_advice_for_states_says_what_needs_them(tmp_path: Path) -> None:
    nightly(tmp_path)
    for night in (2, 3, 4):
        manifest = run(tmp_path, shop(tmp_path), until=first(night))
    root = Path(manifest.root)
    for place in (root / "states").iterdir():
        (place / "items.parquet").unlink()
    advice = sorted(finding.help for finding in verify(Artifacts(root), quiet))
    assert sum("does the days since again" in words for words in advice) == 1
    assert sum("doing an earlier day again needs it" in words for words in advice) == len(advice) - 1
