"""From a wheel, in an empty folder: parts of one's own are begun, checked, listed and used, and so are those of a package."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
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
    ours = folder / "overnight"
    ours.mkdir()
    for name in ("flows", "preprocessing", "modeling", "schemas", "pyproject.toml", "README.md"):
        (ours / name).symlink_to(ROOT / name)  # so that building leaves nothing in the tree
    for source in (ours, package):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        done = subprocess.run([*pip, "--target", str(folder / "site"), str(source)], capture_output=True, text=True)
        if "No module named 'setuptools'" in done.stderr or "No module named pip" in done.stderr:
            pytest.skip("pip and setuptools are needed to build a wheel")
        assert done.returncode == 0, done.stderr
    return folder / "site"


class Shell:
    """Commands in an empty folder, with the installed wheels and nothing of this tree."""

    def __init__(self, installed: Path, folder: Path) -> None:
        packages = [installed, Path(sysconfig.get_paths()["purelib"]), *map(Path, site.getsitepackages())]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "OVERNIGHT_"))}
        self.folder = folder
        self.environment = kept | {"PYTHONPATH": str(packages[0]), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, *command: str, code: int = 0) -> str:
        """What a command printed."""
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def overnight(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What `overnight ... --json` printed last."""
        start = "import sys; from flows.cli import main; sys.exit(main())"
        found: dict[str, Any] = json.loads(self.run("-c", start, *arguments, "--json", code=code).splitlines()[-1])
        return found


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
    facts = shell.overnight("prepare", *common, "--root", "alone", "--until", "2024-01-02")
    assert facts["dropped"]["drop_samples"] == 2
    step = tmp_path / "plugins/steps/drop_samples.py"
    step.write_text(step.read_text().replace("class DropSamples", "class Other"))
    shell.overnight("check", "plugins", code=1)


def test_workers_of_dask_find_them(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed: pip install distributed")
    shell = Shell(installed, tmp_path)
    shell.overnight("new", "step", "drop_samples", "--folder", "mine")
    shell.overnight("new", "encoder", "share_of_mean", "--folder", "mine")
    (tmp_path / "shop.yaml").write_text(SHOP.replace("plugins: plugins\n", ""))
    (tmp_path / "events.csv").write_text(EVENTS)
    common = ["prepare", "--dataset", "shop.yaml", "--source", ".", "--until", "2024-01-02", "--workers", "1"]
    shell.environment["OVERNIGHT_PLUGINS"] = "mine"
    assert shell.overnight(*common, "--root", "variable")["dropped"]["drop_samples"] == 2
    del shell.environment["OVERNIGHT_PLUGINS"]
    (tmp_path / "shop.yaml").write_text(SHOP.replace("plugins: plugins", "plugins: [mine]"))
    assert shell.overnight(*common, "--root", "yaml")["dropped"]["drop_samples"] == 2
