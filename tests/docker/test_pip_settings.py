"""pip's configuration of this machine is carried into a build as a secret whose paths are those of the mounts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DOCKER = Path(__file__).parents[2] / "docker"


def test_paths_are_mounted_or_copied_and_variables_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCKER))  # scripts of a folder that is no package
    from pip_settings import build_options

    wheels, index, pins = tmp_path / "wheels", tmp_path / "index" / "simple", tmp_path / "pins.txt"
    wheels.mkdir()
    index.mkdir(parents=True)
    pins.write_text("torch<3")
    configuration = tmp_path / "pip.conf"
    configuration.write_text(
        f"[global]\nconstraint = {pins}\ntimeout = 1\nextra-index-url =\n  file://{index}\n  https://example.org/simple\n"
    )
    for name in ("PIP_CERT", "PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_TIMEOUT", "7")
    folder = tmp_path / "build"
    options = build_options(folder)
    secret = dict(line.split(" = ") for line in (folder / "pip.conf").read_text().splitlines()[1:])
    copy = secret["constraint"].removeprefix("/mnt/")
    assert (folder / copy).read_text() == "torch<3"
    places = dict(
        option.removeprefix("--volume=").split(":")[:2] for option in options if option.startswith("--volume=")
    )
    assert places[str(folder)] == "/mnt" and places[str(wheels)] == secret["find-links"]
    assert secret["extra-index-url"].split() == [
        f"file://{places[str(index.parent)]}/simple",
        "https://example.org/simple",
    ]
    assert secret["timeout"] == "7"
    assert all(option.endswith(":ro") for option in options if option.startswith("--volume="))
    assert f"--secret=id=pip.conf,src={folder / 'pip.conf'}" in options
    assert sys.modules["pip_settings"].__file__ == str(DOCKER / "pip_settings.py")
