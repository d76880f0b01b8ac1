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
from schemas.errors import InputError
from tests.flows.conftest import clean_environment, prefect_settings

LEFT = 12345  # stands for a descriptor


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


@pytest.mark.fault("a second `overnight serve` for the same root", outcome="one line")
def test_of_two_servers_the_second_is_refused(home: Path) -> None:
    with serving_at("http://127.0.0.1:4200/api"):
        with (
            pytest.raises(InputError, match=r"runs already .* at http://127.0.0.1:4200/api"),
            serving_at("http://127.0.0.1:4300/api"),
        ):
            pass
        assert served_at() == "http://127.0.0.1:4200/api"
    with serving_at("http://127.0.0.1:4300/api"):
        assert served_at() == "http://127.0.0.1:4300/api"


def test_what_a_killed_server_started_is_waited_for(home: Path) -> None:
    """The place is held by what inherited it; nobody serves meanwhile."""
    hold = f"""
import subprocess, sys
from flows.serving import serving_at
with serving_at("http://127.0.0.1:4200/api") as held:
    left = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin={LEFT}, pass_fds=[held])
    print("held", flush=True)
    sys.stdin.read()
"""
    read, write = os.pipe()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    served = subprocess.Popen(
        [sys.executable, "-c", hold.replace(str(LEFT), str(read), 1)],
        env=environment,
        pass_fds=[read],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(read)
    assert served.stdout and served.stdout.readline() == "held\n"
    assert served_at() == "http://127.0.0.1:4200/api"
    served.kill()
    served.wait()
    assert served_at() is None
    said: list[object] = []

    def let_go(line: object) -> None:
        said.append(line)
        os.close(write)

    with serving_at("http://127.0.0.1:4300/api", let_go):
        assert served_at() == "http://127.0.0.1:4300/api"
    assert len(said) == 1 and "earlier `overnight serve`" in str(said[0])


ACTIVE = 'active="o"\n[profiles.o]\n'
FILES = [  # below the working folder, what it holds, and whether a flow would get a temporary server then
    ("pyproject.toml", '[project]\ndependencies = ["prefect"]', True),
    ("pyproject.toml", '[tool.prefect.api]\nurl = "http://127.0.0.1:4200/api"', False),
    ("prefect.toml", '[api]\nurl = "http://127.0.0.1:4200/api"', False),
    (".env", "PREFECT_API_URL=http://127.0.0.1:4200/api", False),
    (".env", "prefect_server_ephemeral_enabled=false", False),
    (".env", "SOMETHING=else", True),
    ("../prefect/profiles.toml", f'{ACTIVE}PREFECT_API_URL="http://127.0.0.1:1/api"', False),
    ("../prefect/profiles.toml", f'{ACTIVE}PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true"', True),
    ("../prefect/profiles.toml", f'{ACTIVE}PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="false"', False),
]


@pytest.mark.parametrize(("file", "text", "temporary"), FILES)
def test_files_that_prefect_reads_count(home: Path, file: str, text: str, temporary: bool) -> None:
    Path(file).write_text(text)
    with prefect_settings():
        assert only_temporary() == temporary


def test_prefect_reads_them_as_it_is_imported(home: Path) -> None:
    Path(".env").write_text("PREFECT_API_URL=http://127.0.0.1:4200/api")
    ask = "from flows.serving import only_temporary; print(only_temporary())"
    project = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([project, *sys.path])}
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "False", done.stderr
