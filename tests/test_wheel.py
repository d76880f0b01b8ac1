"""From a wheel, in an empty folder: a project is begun, runs nights, is served and upgraded; own parts are begun and used.

Parts of a package are found, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preprocessing.simulate import Shop, simulate
from tests.flows.conftest import answer_of, begun, free_port
from tests.flows.conftest import folder_of_all_processes as folder_of_all_processes
from tests.slow import SLOW

ROOT = Path(__file__).parents[1]
START = "import sys; from flows.cli import main; sys.exit(main())"
QUICK = ["--set=training.epochs=15", "--set=training.threads=1", "--set=promotion.min_gain=-0.9"]
EVENTS = """user_id,item_id,timestamp,price
a,lamp,2024-01-01 10:00:00,9.5
a,pen,2024-01-01 10:01:00,0.2
a,desk,2024-01-01 10:02:00,80
b,desk,2024-01-01 11:00:00,80
b,lamp,2024-01-01 11:01:00,9.5
a,lamp,2024-01-02 10:00:00,9.5
a,desk,2024-01-02 10:01:00,80
a,pen,2024-01-02 10:02:00,0.2
b,lamp,2024-01-02 11:00:00,9.5
b,desk,2024-01-02 11:01:00,80
a,lamp,2024-01-03 10:00:00,9.5
a,desk,2024-01-03 10:01:00,80
b,desk,2024-01-03 23:50:00,80
"""
SHOP = """name: corner-shop
plugins: plugins
events:
  path: events.csv
  columns: {user_id: user_id, item_id: item_id, timestamp: timestamp, price: price}
steps:
  - drop_samples: {lowest: 1}
  - keep_odd
features:
  price: {encode: share_of_mean}
"""
KEEP_ODD = '''"""Keep odd."""

from preprocessing.steps import Step


class KeepOdd(Step):
    """Keep everything, for all that."""
'''
SETUP = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "corner-parts"
version = "1.2"
[project.entry-points."overnight.steps"]
keep_odd = "corner.keep_odd"
[tool.setuptools]
packages = ["corner"]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheels of Overnight and of a package with a step lie unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    package = folder / "corner-parts"
    (package / "corner").mkdir(parents=True)
    (package / "pyproject.toml").write_text(SETUP)
    (package / "corner" / "__init__.py").write_text("")
    (package / "corner" / "keep_odd.py").write_text(KEEP_ODD)
    install(tree(folder / "overnight"), folder / "site")
    install(package, folder / "site")
    return folder / "site"


def tree(folder: Path) -> Path:
    """What a wheel is built of, as links, so that building leaves nothing in the tree."""
    folder.mkdir()
    for name in ("flows", "preprocessing", "modeling", "schemas", "pyproject.toml", "README.md"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def install(source: Path, site: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(site), str(source)], capture_output=True, text=True)
    if "No module named 'setuptools'" in done.stderr or "No module named pip" in done.stderr:
        pytest.skip("pip and setuptools are needed to build a wheel")
    assert done.returncode == 0, done.stderr


class Shell:
    """Commands in an empty folder, with the installed wheels and nothing of this tree."""

    def __init__(self, installed: Path, folder: Path) -> None:
        packages = [installed, Path(sysconfig.get_paths()["purelib"]), *map(Path, site.getsitepackages())]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "OVERNIGHT_"))}
        self.folder = folder
        self.environment = kept | {"PYTHONPATH": str(packages[0]), "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment["OVERNIGHT_MLFLOW"] = "off"  # its UI is tested elsewhere

    def run(self, *command: str, code: int = 0) -> str:
        """What a command printed."""
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def overnight(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What `overnight ... --json` printed last."""
        found: dict[str, Any] = json.loads(self.run("-c", START, *arguments, "--json", code=code).splitlines()[-1])
        return found

    @contextmanager
    def serving(self, port: int) -> Iterator[str]:
        """`overnight serve` while the block lasts: its API's URL."""
        command = [sys.executable, "-c", START, "serve", "--port", str(port)]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("Prefect UI:"):
                    break
            else:
                raise AssertionError("".join(lines))
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield f"http://127.0.0.1:{port}/api"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def test_a_project_is_begun_runs_nights_is_served_and_upgraded(installed: Path, tmp_path: Path) -> None:
    site_here = tmp_path / "site"
    shutil.copytree(installed, site_here)
    shell = Shell(site_here, tmp_path)
    simulate(Shop(days=4, users=60, seed=5), tmp_path / "shop")
    project = shell.overnight("init", "corner", "--from", "shop")
    assert project["dataset"] == "corner.yaml" and project["kept"] == []
    shell.folder = tmp_path / "corner"
    assert "overnight-data" not in {path.name for path in shell.folder.iterdir()}
    begun(shell.folder / "overnight-data")
    if SLOW:
        with shell.serving(free_port()) as url:
            night = run_of(
                url, "retrain/nightly", {"training": {"epochs": 1, "threads": 1}, "promotion": {"min_gain": -0.9}}
            )
        assert (night["state"]["type"], night["name"].split()[0]) == ("COMPLETED", "corner"), night
    else:  # tests/flows/test_serve.py has a server of this tree run a night
        shell.overnight("retrain", *QUICK)
    in_service = json.loads((shell.folder / "overnight-data/champions/corner.json").read_text())["model"]
    upgrade(site_here, "99.1")
    assert "99.1" in shell.run("-c", "from importlib.metadata import version; print(version('overnight'))")
    upgraded = shell.overnight("retrain", *QUICK)  # of the folder's dataset, on its days
    assert upgraded["nothing_to_do"] and upgraded["in_service"] == in_service
    assert shell.overnight("init", ".", "--from", "../shop")["written"] == []


def upgrade(site_here: Path, version: str) -> None:
    """What an installation of a newer wheel leaves: other files in the place of the old ones."""
    (about,) = site_here.glob("overnight-*.dist-info")
    newer = about.rename(site_here / f"overnight-{version}.dist-info")
    text = (newer / "METADATA").read_text()
    (newer / "METADATA").write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", text, count=1))
    for name in ("flows", "preprocessing", "modeling", "schemas"):
        shutil.copytree(site_here / name, site_here / f"{name}-new")
        shutil.rmtree(site_here / name)
        (site_here / f"{name}-new").rename(site_here / name)


def run_of(url: str, deployment: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A run of a deployment, when it has ended."""

    def ask(place: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{url}/{place}", data, {"Content-Type": "application/json"})
        found: dict[str, Any] = answer_of(request)
        return found

    about = ask(f"deployments/name/{deployment}")
    run = ask(f"deployments/{about['id']}/create_flow_run", {"parameters": about["parameters"] | parameters})
    while run["state"]["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
        time.sleep(2)
        run = ask(f"flow_runs/{run['id']}")
    return run


def test_own_parts_are_begun_checked_listed_and_used(installed: Path, tmp_path: Path) -> None:
    shell = Shell(installed, tmp_path)
    where = shell.run("-c", "import flows, schemas, preprocessing, modeling; print(flows.__file__, modeling.__file__)")
    assert str(installed) in where and str(ROOT) not in where
    shell.overnight("new", "step", "drop_samples")
    shell.overnight("new", "encoder", "share_of_mean")
    shell.run("-m", "pytest", "-q", "plugins/tests")
    verdict = shell.overnight("check", "plugins")
    assert verdict["kept"] == ["steps/drop_samples", "encoders/share_of_mean"]
    (tmp_path / "shop.yaml").write_text(SHOP)
    (tmp_path / "events.csv").write_text(EVENTS)
    listed = shell.overnight("steps", "--dataset", "shop.yaml")
    origin = {one["name"]: one["origin"] for kind in listed.values() for one in kind}
    assert origin["drop_samples"] == str(tmp_path / "plugins/steps/drop_samples.py")
    assert origin["keep_odd"] == "corner-parts 1.2, corner.keep_odd" and origin["k_core"] == "built in"
    common = ["--dataset", "shop.yaml", "--source", "."]
    prepare = ["prepare", *common, "--until", "2024-01-02", "--workers", "1"]  # which finds them, too
    assert shell.overnight(*prepare, "--root", "yaml")["dropped"]["drop_samples"] == 2
    (tmp_path / "shop.yaml").write_text(SHOP.replace("plugins: plugins\n", ""))
    shell.environment["OVERNIGHT_PLUGINS"] = "plugins"
    assert shell.overnight(*prepare, "--root", "variable")["dropped"]["drop_samples"] == 2
    del shell.environment["OVERNIGHT_PLUGINS"]
    step = tmp_path / "plugins/steps/drop_samples.py"
    step.write_text(step.read_text().replace("class DropSamples", "class Other"))
    shell.overnight("check", "plugins", code=1)
