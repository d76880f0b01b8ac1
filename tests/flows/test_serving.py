"""Whether a night with nothing to do has a server to be a run on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.environment import prepare_environment
from flows.serving import SERVED, only_temporary, served_at, serving_at
from tests.flows.conftest import clean_environment


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A root of its own, with nothing set and in an empty folder."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    before = dict(os.environ)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    prepare_environment(tmp_path)
    yield tmp_path / "prefect"
    os.environ.clear()
    os.environ.update(before)


def test_a_server_is_found_while_it_serves(home: Path) -> None:
    assert only_temporary() and served_at() is None
    with serving_at("http://127.0.0.1:4200/api"):
        assert served_at() == "http://127.0.0.1:4200/api" and not only_temporary()
    assert (home / SERVED).exists() and served_at() is None and only_temporary()


def test_of_two_servers_the_first_is_found(home: Path) -> None:
    with serving_at("http://127.0.0.1:4200/api"), serving_at("http://127.0.0.1:4300/api"):
        assert served_at() == "http://127.0.0.1:4200/api"


@pytest.mark.parametrize(
    ("file", "text", "temporary"),
    [
        ("pyproject.toml", '[project]\ndependencies = ["prefect"]', True),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://127.0.0.1:4200/api"', False),
        ("prefect.toml", '[api]\nurl = "http://127.0.0.1:4200/api"', False),
        (".env", "PREFECT_API_URL=http://127.0.0.1:4200/api", False),
        (".env", "prefect_server_ephemeral_enabled=false", False),
        (".env", "SOMETHING=else", True),
        ("../prefect/profiles.toml", 'active="o"\n[profiles.o]\nPREFECT_API_URL="http://127.0.0.1:1/api"', False),
        ("../prefect/profiles.toml", 'active="o"\n[profiles.o]\nPREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true"', True),
        ("../prefect/profiles.toml", 'active="o"\n[profiles.o]\nPREFECT_SERVER_ALLOW_EPHEMERAL_MODE="false"', False),
    ],
)
def test_files_that_prefect_reads_count(home: Path, file: str, text: str, temporary: bool, tmp_path: Path) -> None:
    Path(file).write_text(text)
    ask = "from flows.serving import only_temporary; print(only_temporary())"
    project = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([project, *sys.path])}
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str(temporary), done.stderr
