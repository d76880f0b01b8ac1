"""What prune keeps, and that it frees what it says."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.night_lock import may_go_on
from flows.prune import in_bytes, prune
from flows.reports.disk import disk_of
from modeling.evaluation.pointer import put_in_service
from modeling.service.tracking.store import SECOND, tracked_folder
from schemas.artifacts import MANIFEST, Artifacts
from schemas.errors import InputError
from tests.flows.conftest import overnight_here, summary_of

DAY = 24 * 3600


@pytest.fixture(scope="module")
def prepared(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with prepared days of two lines."""
    root = tmp_path_factory.mktemp("prepared")
    summary_of(overnight_here("prepare", "--source", shop, "--root", root, "--json"))
    summary_of(
        overnight_here(
            "prepare", "--source", shop, "--root", root, "--set", "dataset.sessions.gap_minutes=20", "--json"
        )
    )
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Artifacts:
    shutil.copytree(prepared, tmp_path / "root", copy_function=os.link)
    return Artifacts(tmp_path / "root")


def model(artifacts: Artifacts, number: int, days_ago: int, dataset: str = "demo") -> str:
    """A model of the newest snapshot, its evaluation and comparison, made so many days ago."""
    sessions = artifacts.newest("sessions")
    assert sessions
    artifact_id = f"{number:016x}"
    with artifacts.write("models", artifact_id, parents=(sessions.name,)) as draft:
        schema = (sessions.folder / "schema.json").read_text()
        (draft.folder / "schema.json").write_text(schema.replace('"demo"', f'"{dataset}"'))
        (draft.folder / "weights").write_text("x" * 1000 * number)
    with artifacts.write("evaluations", artifact_id, parents=(draft.manifest.name, sessions.name)):
        pass
    with artifacts.write("comparisons", artifact_id, parents=(f"evaluations/{artifact_id}",)):
        pass
    for kind in ("models", "evaluations", "comparisons"):
        age(artifacts.root / kind / artifact_id, days_ago)
    return draft.manifest.name


def age(folder: Path, days: int) -> None:
    """Make an artifact as old as that."""
    path = folder / MANIFEST
    written = json.loads(path.read_text())
    path.unlink()  # it may be a link
    written["created"] = str(datetime.now(UTC) - timedelta(days=days))
    path.write_text(json.dumps(written))


def age_all(artifacts: Artifacts) -> None:
    for path in artifacts.root.glob(f"*/*/{MANIFEST}"):
        age(path.parent, 300)


def names(artifacts: Artifacts, kind: str) -> set[str]:
    return {f"{kind}/{path.name}" for path in (artifacts.root / kind).iterdir()}


def test_models_in_service_and_the_newest_of_each_dataset_stay(root: Artifacts) -> None:
    age_all(root)
    old = [model(root, number, days_ago=200 - number) for number in range(1, 9)]
    of_another = model(root, 9, days_ago=250, dataset="another")
    put_in_service(root, "demo", old[1], by="comparison")
    put_in_service(root, "demo", old[3], by="comparison")
    put_in_service(root, "demo", old[4], by="comparison")
    pruned = prune(root, keep_models=2, keep_days=7)
    gone = {f"models/{name}" for name in pruned.going["models"]}
    assert gone == {old[0], old[1], old[2], old[5]}, "in service and before: 4 and 3; newest: 6 and 7"
    assert of_another not in gone
    assert pruned.going["evaluations"] == pruned.going["models"]
    assert "comparisons" not in pruned.going
    assert {*old, of_another} == names(root, "models"), "nothing is removed unasked"
    prune(root, keep_models=2, keep_days=7, remove=True)
    assert names(root, "models") == {*old, of_another} - gone
    assert len(names(root, "comparisons")) == 9
    assert not list((root.root / "unfinished").iterdir())


def test_the_evaluated_model_of_a_refit_in_service_stays(root: Artifacts) -> None:
    evaluated, refit, _ = (model(root, number, 100 - number) for number in (1, 2, 3))
    path = root.root / refit / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"facts": {"refit_of": evaluated}}))
    age_all(root)
    put_in_service(root, "demo", refit, by="promote")
    prune(root, keep_models=1, keep_days=1, remove=True)
    assert {evaluated, refit} <= names(root, "models")
    measured = evaluated.replace("models/", "evaluations/")
    assert measured in names(root, "evaluations"), "it says whether lists hold what was seen"


def test_models_of_more_seeds_do_not_count_among_the_newest(root: Artifacts) -> None:
    """They measure the scatter of a night's recipe, and would push the nights' models out."""
    age_all(root)
    nights = [model(root, number, 200 - number) for number in (1, 2, 3)]
    seeds = [model(root, number, 150 - number) for number in (4, 5)]
    measured = tuple(f"evaluations/{name.partition('/')[2]}" for name in (nights[2], *seeds))
    for name in seeds:  # as they are made: no comparison
        shutil.rmtree(root.root / name.replace("models/", "comparisons/"))
    with root.write("scatters", "a" * 16, parents=measured):
        pass
    prune(root, keep_models=2, keep_days=7, remove=True)
    assert names(root, "models") == {nights[1], nights[2]}
    one = model(root, 6, 100)
    with root.write("scatters", "b" * 16, parents=(measured[2], one.replace("models/", "evaluations/"))):
        pass
    prune(root, keep_models=1, keep_days=7, remove=True)
    assert names(root, "models") == {one}, "what was compared is a night's, also where a measurement took it in"


@pytest.mark.parametrize("place", ["unfinished/0123456789abcdef", "tuning/0123456789abcdef/lock"])
def test_sessions_stay_while_a_process_trains_or_tunes(place: str, root: Artifacts) -> None:
    age_all(root)
    held = root.root / place
    held.parent.mkdir(parents=True, exist_ok=True)
    held.touch() if held.name == "lock" else held.mkdir()
    descriptor = os.open(held, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert "sessions" not in prune(root, 14, 0).going
    finally:
        os.close(descriptor)
    assert len(prune(root, 14, 0).going["sessions"]) == 1


def test_where_there_is_nothing_one_line_says_so(root: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    lines = list(prune(Artifacts(tmp_path / "empty"), 14, 7).lines())
    assert len(lines) == 1 and "nothing below this root yet" in lines[0]
    lines = list(prune(root, 14, 7).lines())
    assert lines[-1] == "All of it is needed: there is nothing to remove."
    assert not [line for line in lines if line.split()[2:4] == ["0", "B"]]


def test_the_second_of_two_models_that_are_compared_stays(root: Artifacts) -> None:
    second, _, newest = (model(root, number, 100 - number) for number in (1, 2, 3))
    age_all(root)
    put_in_service(root, "demo", newest, by="promote")
    file = tracked_folder(root.root, "demo") / SECOND
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"model": second}))
    prune(root, keep_models=1, keep_days=1, remove=True)
    assert names(root, "models") == {second, newest} and file.exists()
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=f"{SECOND} cannot be read"):
        prune(root, keep_models=1, keep_days=1, remove=True)
    assert names(root, "models") == {second, newest}


def test_what_was_made_lately_stays(root: Artifacts) -> None:
    made = [model(root, number, days_ago=number) for number in range(1, 6)]
    gone = prune(root, keep_models=1, keep_days=3).going["models"]
    assert [f"models/{name}" for name in gone] == made[2:]


def test_finished_days_and_their_states_stay_also_of_an_older_line(root: Artifacts, shop: Path) -> None:
    age_all(root)
    before = names(root, "days"), names(root, "states")
    with root.write("days", "0" * 16):  # of a run that was killed before its ledger was written
        pass
    age(root.root / "days" / ("0" * 16), 300)
    pruned = prune(root, keep_models=1, keep_days=7, remove=True)
    assert pruned.going["days"] == ["0" * 16]
    assert (names(root, "days"), names(root, "states")) == before
    assert len(names(root, "sessions")) == 1, "the newest"
    again = overnight_here("prepare", "--source", shop, "--root", root.root)
    assert again.returncode == 0
    assert "All is as it was written." in overnight_here("verify", "--root", root.root).stdout


def test_linked_files_are_counted_once_and_freed_with_their_last_name(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    for number in (1, 2):
        with artifacts.write("sessions", str(number) * 16) as draft:
            if number == 1:
                (draft.folder / "part").write_text("x" * 5000)
            else:
                os.link(tmp_path / "sessions" / ("1" * 16) / "part", draft.folder / "part")
        age(draft.manifest.folder, 300 - number)
    pruned = prune(artifacts, 1, 7)
    manifests = sum(path.stat().st_size for path in tmp_path.glob(f"*/*/{MANIFEST}"))
    assert pruned.sizes["sessions"] == 5000 + manifests
    assert pruned.going == {"sessions": ["1" * 16]}
    assert pruned.freed["sessions"] == (tmp_path / "sessions" / ("1" * 16) / MANIFEST).stat().st_size


def test_a_stopped_backtest_keeps_what_it_made(root: Artifacts) -> None:
    age_all(root)
    about = {"from": "2026-03-01", "to": "2026-03-04"}
    with pytest.raises(KeyboardInterrupt), may_go_on(root, about):
        raise KeyboardInterrupt
    (folder,) = (root.root / "unfinished").iterdir()
    began = time.time() - 20 * DAY
    for path in (*folder.iterdir(), folder):
        os.utime(path, (began, began))
    made = [model(root, number, days_ago=days) for number, days in ((1, 21), (2, 19), (3, 18), (4, 0))]
    assert [f"models/{name}" for name in prune(root, 1, 7).going["models"]] == made[:1]
    with may_go_on(root, about):  # it goes on, and ends
        assert list((root.root / "unfinished").iterdir()) == [folder]
    assert [f"models/{name}" for name in prune(root, 1, 7).going["models"]] == made[:3]


def test_drafts_of_the_dead_go_and_those_of_the_living_stay(root: Artifacts) -> None:
    old = time.time() - 20 * DAY
    for name in ("left", "lately", "worked-on"):
        (root.root / "unfinished" / name).mkdir(parents=True)
    for name in ("left", "worked-on"):
        os.utime(root.root / "unfinished" / name, (old, old))
    with root.unfinished("worked-on"):
        os.utime(root.root / "unfinished" / "worked-on", (old, old))
        assert prune(root, 1, 7, remove=True).going["unfinished"] == ["left"]
        assert {path.name for path in (root.root / "unfinished").iterdir()} == {"lately", "worked-on"}


@pytest.mark.parametrize("place", ["champions/demo.json", "ledgers/{line}.parquet"])
def test_where_needs_cannot_be_read_nothing_is_removed(place: str, root: Artifacts) -> None:
    line = next((root.root / "ledgers").iterdir()).stem
    path = root.root / place.format(line=line)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.write_text("{")
    with pytest.raises(InputError, match=str(path.name)):
        prune(root, 1, 0, remove=True)


def test_unreadable_folders_are_left_alone_and_named(root: Artifacts) -> None:
    name = model(root, 1, days_ago=100)
    (root.root / name / MANIFEST).write_text("{")
    model(root, 2, days_ago=50)
    pruned = prune(root, 1, 7, remove=True)
    assert pruned.unread == [name]
    assert any(name in line and "verify" in line for line in pruned.lines())
    assert (root.root / name).is_dir()


def test_the_command_lists_first_and_removes_when_asked(root: Artifacts) -> None:
    made = [model(root, number, days_ago=100 - number) for number in (1, 2, 3)]
    listed = overnight_here("prune", "--root", root.root, "--keep-models", "1", "--json")
    about = summary_of(listed)
    assert about["removed"] is False and [f"models/{name}" for name in about["not_needed"]["models"]] == made[:2]
    assert "Nothing was removed" in listed.stdout and "models" in listed.stdout
    assert len(names(root, "models")) == 3
    removed = summary_of(overnight_here("prune", "--root", root.root, "--keep-models", "1", "--remove", "--json"))
    assert removed["removed"] is True and removed["freed"] == about["freed"] > 3000
    assert names(root, "models") == {made[2]}
    again = summary_of(overnight_here("prune", "--root", root.root, "--keep-models", "1", "--dry-run", "--json"))
    assert again["not_needed"] == {} and again["bytes"] <= about["bytes"] - about["freed"] + 5000


def test_no_root_is_named(tmp_path: Path) -> None:
    done = overnight_here("prune", "--root", tmp_path / "nowhere")
    assert done.returncode == 2 and "nowhere is not a folder" in done.stderr


def test_sizes_in_words() -> None:
    assert [in_bytes(size) for size in (0, 999, 1000, 1_234_567, 5 * 10**12, 10**16)] == [
        "0 B", "999 B", "1.0 kB", "1.2 MB", "5.0 TB", "10000.0 TB",
    ]  # fmt: skip


def test_the_room_of_a_root_is_said(root: Artifacts, tmp_path: Path) -> None:
    said = disk_of(root.root)
    assert re.fullmatch(r"The root takes [\d.]+ kB \(.*days [\d.]+ kB.*\); its disk has [\d.]+ \wB left\.", said), said
    taken = prune(root, 14, 7).sizes.total()
    assert f"takes {in_bytes(taken)} (" in said, "as prune measures it"
    assert disk_of(tmp_path / "nowhere") == ""
