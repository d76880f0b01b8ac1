"""The flow as it is run at night: whole, again, and killed in the middle."""

from __future__ import annotations

import itertools
import json
import os
import re
import sqlite3
import sys
from pathlib import Path

import pytest

from flows.pages import pages_of
from schemas.artifacts import MANIFEST
from tests.chromium import CHROMIUM, chromium
from tests.flows.conftest import (
    QUICK,
    clean_environment,
    night_here,
    overnight,
    overnight_here,
    run_and_kill,
    summary_of,
)
from tests.flows.served import needs_proc
from tests.slow import SLOW

KILLED_AT = [  # a line of its output, and whether it is tried in every run; tests/faults/test_kills.py kills the stages alone
    (r"'prepare' - clean", False),
    (r"\((1[5-9]|[2-9]\d)%\), loss", False),
    (r"\([4-9]\d%\), loss", True),
    (r"'evaluate' - popularity", False),
    (r"'compare' - Finished", False),
]


Killed = tuple[Path, dict[str, object], list[str], list[str]]


@pytest.fixture(scope="module")
def killed(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A night that was killed and run again: root, summary, what was said, and the commands that were gone by then."""
    root = tmp_path_factory.mktemp("killed")
    arguments = ["retrain", "--source", shop, "--root", root, *QUICK, "--json"]
    kills = [line for line, is_usual in KILLED_AT if is_usual or SLOW]
    said, gone = zip(*(run_and_kill(re.compile(line).search, *arguments) for line in kills), strict=True)
    shown = {"OVERNIGHT_MLFLOW": "on", "OVERNIGHT_MLFLOW_UI": "http://127.0.0.1:5000"}
    done = overnight(*arguments, environment=clean_environment() | shown)
    return root, summary_of(done), [*itertools.chain(*said), done.stderr], list(itertools.chain(*gone))


@pytest.fixture(scope="module")
def whole(killed: Killed) -> tuple[Path, dict[str, object]]:
    """A night in its root, with its summary."""
    return killed[:2]


@pytest.mark.fault("a run from a terminal is killed with its server in any stage", outcome="goes on")
def test_killed_at_any_stage_the_next_run_goes_on(shop: Path, killed: Killed, tmp_path: Path) -> None:
    _, summary, said, _ = killed
    assert any("Going on from step" in line for line in said)
    undisturbed = summary_of(night_here("--source", shop, "--root", tmp_path, *QUICK, "--json"))
    for name in ("metrics", "verdict", "in_service"):
        assert summary[name] == undisturbed[name]


@needs_proc
@pytest.mark.fault("a run from a terminal is killed: its temporary server", outcome="ends with it")
def test_a_killed_run_takes_its_server_and_its_stages_with_it(killed: Killed) -> None:
    for words in ("flows/server.py", "flows.child_process"):
        assert any(words in command for command in killed[3]), killed[3]


def test_a_night_promotes_its_first_model_and_reports(whole: tuple[Path, dict[str, object]]) -> None:
    root, summary = whole
    assert summary["promoted"] is True
    pointer = json.loads((root / "champions" / "demo.json").read_text())
    assert pointer["model"] == summary["in_service"]
    assert (root / pointer["model"] / "model.safetensors").is_file()
    page = Path(str(summary["report"])).read_text()
    assert "popularity" in page and str(summary["verdict"]) in page
    assert "<script" not in page
    assert not list(root.glob("unfinished/*"))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_the_report_fits_its_window_and_leads_to_the_day(whole: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    root, summary = whole
    fits = "document.documentElement.scrollWidth <= innerWidth"
    with pages_of(root) as address, chromium(tmp_path) as page:
        for width in (1280, 800, 480):
            page.resize(width)
            page.open(f"{address}/{Path(str(summary['report'])).relative_to(root)}")
            assert page.value(fits), width
            cut = "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length"
            assert width < 800 or page.value(cut) == 0, f"a table is cut at {width}"
        page.click("document.querySelector('a[href$=\"profile.html\"]')")
        page.wait("location.pathname.startsWith('/profiles/')")
        page.wait("document.readyState == 'complete'")
        assert page.value(fits) and "2026-03-05" in page.text()


def test_nothing_stored_is_a_pickle(whole: tuple[Path, dict[str, object]]) -> None:
    root, _ = whole
    kinds = {
        path.suffix
        for path in root.rglob("*")
        if path.is_file() and not {"prefect", "locks", "mlflow"} & set(path.parts)
    }
    assert kinds <= {".json", ".parquet", ".safetensors", ".html", ".pbtxt"}


def test_running_again_only_says_so(shop: Path, whole: tuple[Path, dict[str, object]]) -> None:
    root, summary = whole
    before = {path: path.stat().st_mtime_ns for path in root.glob(f"*/*/{MANIFEST}")}
    done = overnight("retrain", "--source", shop, "--root", root, *QUICK, "--json")
    again = summary_of(done)
    assert "Nothing to do" in done.stdout
    assert again == summary | {"nothing_to_do": True, "mlflow": None}
    assert "'prepare' - sessions of demo are there already" in done.stderr
    assert "'train' - Model" in done.stderr and "'report' - Report" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in root.glob(f"*/*/{MANIFEST}")}


def test_a_night_is_recorded_in_mlflow_and_links_to_it(shop: Path, whole: tuple[Path, dict[str, object]]) -> None:
    pytest.importorskip("mlflow")
    root, summary = whole
    assert str(summary["mlflow"]).startswith("http://127.0.0.1:5000/#/experiments/1/runs/")
    with sqlite3.connect(root / "prefect" / "prefect.db") as database:
        assert database.execute("SELECT count(*) FROM artifact WHERE key = 'mlflow'").fetchone() == (1,)
    arguments = ["retrain", "--source", shop, "--root", root, *QUICK]
    again = overnight_here(*arguments, OVERNIGHT_MLFLOW="on")
    assert "Nothing to do" in again.stdout and "MLflow" not in again.stderr, again.stdout + again.stderr


NOTE_MODULES = """
import atexit, os, sys
def note():
    names = {name.partition(".")[0] for name in sys.modules}
    with open(os.path.join(os.environ["NOTES"], str(os.getpid())), "w") as file:
        file.write(" ".join(sorted(names)))
atexit.register(note)
"""


def test_nothing_to_do_is_found_without_a_server_and_without_torch(
    shop: Path, whole: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOTE_MODULES)
    (tmp_path / "notes").mkdir()
    environment = clean_environment() | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    environment["NOTES"] = str(tmp_path / "notes")
    done = overnight("retrain", "--source", shop, "--root", whole[0], *QUICK, "--json", environment=environment)
    assert summary_of(done)["nothing_to_do"] is True
    (notes,) = (tmp_path / "notes").iterdir()  # one process
    modules = set(notes.read_text().split())
    assert "polars" in modules
    assert not modules & {"torch", "transformers", "prefect", "sqlalchemy", "fastapi"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
            ["No Prefect server answers", "http://127.0.0.1:9/api", "unset"],
        ),
        (
            {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"},
            ["allows no temporary server", "PREFECT_API_URL is not set"],
        ),
    ],
)
def test_a_server_that_is_named_must_answer_also_with_nothing_to_do(
    settings: dict[str, str], words: list[str], shop: Path, whole: tuple[Path, dict[str, object]]
) -> None:
    done = overnight_here("retrain", "--source", shop, "--root", whole[0], *QUICK, **settings)
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert all(word in line for word in [*words, "overnight serve"]) and "Traceback" not in done.stderr, done.stderr


def test_a_better_model_takes_over_and_a_worse_one_does_not(shop: Path, whole: tuple[Path, dict[str, object]]) -> None:
    root, first = whole
    source = ["--source", shop, "--root", root, "--json", "--set", "training.threads=1"]
    worse = summary_of(night_here(*source, "--set", "training.learning_rate=1e-7", "--set", "training.epochs=1"))
    assert worse["promoted"] is False
    assert worse["in_service"] == first["in_service"]
    assert "of the model in service" in str(worse["verdict"])


def test_a_night_run_again_does_not_undo_a_rollback(
    shop: Path, whole: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    root, first = whole
    better = ["--source", shop, "--root", root, "--json", *QUICK, "--set", "training.seed=3"]
    second = summary_of(night_here(*better))
    assert second["promoted"] and second["in_service"] != first["in_service"]
    back = summary_of(overnight_here("rollback", "--root", root, "--because", "odd lists", "--json"))
    assert back == {"dataset": "demo", "in_service": first["in_service"], "replaced": second["in_service"]}
    again = summary_of(night_here(*better))
    assert again["in_service"] == first["in_service"] and not again["promoted"]
    assert f"{second['in_service']} was taken out of service" in again["verdict"] and "odd lists" in again["verdict"]
    once_more = night_here(*better)
    assert "Nothing to do" in once_more.stdout and summary_of(once_more)["verdict"] == again["verdict"]
    put_back = summary_of(overnight_here("promote", str(second["in_service"]), "--root", root, "--json"))
    assert put_back["in_service"] == second["in_service"]
