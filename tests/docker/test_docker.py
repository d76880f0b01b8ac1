"""Dockerfile and ignore file agree with each other and with the code; nothing is built here.

`make image` builds and runs them for real (tests/docker/test_image.py).
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from flows.environment import QUIET

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|AUTH", re.IGNORECASE)
STAGES = ("cpu", "gpu", "nvtabular")


def rules(name: str) -> list[str]:
    """The lines of a file of docker/, without comments, continued lines joined."""
    lines = [line for line in (DOCKER / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    return [line for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines() if line.strip()]


def instructions(name: str) -> list[str]:
    """What follows an instruction of the Dockerfile, once for each time it is there."""
    return [line.partition(" ")[2] for line in rules("Dockerfile") if line.startswith(f"{name} ")]


def assigned(name: str) -> dict[str, str]:
    """What ENV or ARG sets."""
    return dict(word.split("=", 1) for line in instructions(name) for word in shlex.split(line))


def copied() -> list[str]:
    """The sources of every COPY."""
    return [name for line in instructions("COPY") if not line.startswith("--from") for name in line.split()[:-1]]


def stage(name: str) -> list[str]:
    """The lines of one stage of the Dockerfile, behind its FROM."""
    lines = rules("Dockerfile")
    begin = next(place for place, line in enumerate(lines) if line.startswith("FROM ") and line.endswith(f" AS {name}"))
    end = next((place for place in range(begin + 1, len(lines)) if lines[place].startswith("FROM ")), len(lines))
    return lines[begin + 1 : end]


def test_docker_is_no_package() -> None:
    assert not (DOCKER / "__init__.py").exists()
    import docker

    assert Path(docker.__file__).is_relative_to(sys.prefix), "Prefect would import our folder"


# What is built


def test_every_source_of_a_copy_is_there_and_every_package_and_its_data_is_copied() -> None:
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    setuptools = PYPROJECT["tool"]["setuptools"]
    assert {pattern.rstrip("*") for pattern in setuptools["packages"]["find"]["include"]} <= set(copied())
    for package, patterns in setuptools["package-data"].items():
        for pattern in patterns:
            assert package in copied() and list((ROOT / package).glob(pattern)), f"no {package}/{pattern}"
    assert {"prefect.yaml", "constraints.txt", PYPROJECT["project"]["readme"]} <= set(copied())


def test_the_build_is_sent_what_it_copies_and_nothing_else() -> None:
    """First everything is left out, then what is copied comes back by its full name: no data, environments, secrets."""
    first, *others = rules("Dockerfile.dockerignore")
    assert first == "*"
    assert sorted({line for line in others if line.startswith("!")}) == sorted({f"!{name}" for name in copied()})
    assert [line for line in others if not line.startswith("!")] == ["**/__pycache__", "**/*.pyc"]


def test_what_is_copied_is_code_and_text() -> None:
    suffixes = {
        file.suffix
        for name in copied()
        for file in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert suffixes <= {".py", ".yaml", ".j2", ".html", ".md", ".toml", ".txt", ".typed"}, suffixes


def test_every_installation_is_constrained_and_torch_is_the_pinned_one() -> None:
    installations = [part for run in instructions("RUN") for part in run.split("&&") if "pip install" in part]
    assert installations and all("-c constraints.txt" in part for part in installations)
    pinned = next(line for line in CONSTRAINTS.split() if line.startswith("torch=="))
    for name in ("cpu-packages", "gpu-packages"):
        assert any(pinned in line.split() for line in stage(name)), name
    wanted = next(item for item in PYPROJECT["project"]["dependencies"] if item.startswith("torch"))
    assert Requirement(wanted).specifier.contains(pinned.removeprefix("torch=="))
    assert assigned("ARG")["TORCH_INDEX"] == "--index-url https://download.pytorch.org/whl/cpu"
    assert sum("TORCH_INDEX}" in part for part in installations) == 1, "that index lacks our other pins"


def test_requirements_are_those_of_the_project_and_of_extras_that_are_there() -> None:
    (line,) = [run for run in instructions("RUN") if "requirements.py" in run]
    extras = re.findall(r"requirements\.py ([\w -]+?) >", line)
    project = PYPROJECT["project"]
    for words in extras:
        names = [word for word in words.split() if word != "--only"]
        done = subprocess.run(
            [sys.executable, DOCKER / "requirements.py", *words.split()],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        wanted = [] if "--only" in words else list(project["dependencies"])
        assert done.stdout.splitlines() == [
            *wanted,
            *(item for name in names for item in project["optional-dependencies"][name]),
        ]


def test_pips_configuration_is_a_secret_of_the_build_alone() -> None:
    for run in instructions("RUN"):
        assert ("pip install" in run) == run.startswith("--mount=type=secret,id=pip.conf "), run
    assert assigned("ARG")["PIP_CONFIG_FILE"] == "/run/secrets/pip.conf"
    assert not [name for name in assigned("ENV") if name.startswith("PIP_")]


@pytest.mark.parametrize("target", STAGES)
def test_code_comes_after_dependencies(target: str) -> None:
    """Else each edit installs everything again."""
    copy, install, *_ = [line for line in stage(target) if line.startswith(("COPY", "RUN"))]
    assert (
        copy == "COPY --from=code /app /app"
        and "--no-deps" in install
        and install.split("&&")[0].strip().endswith("--editable .")
    )


def test_the_image_is_quiet_rootless_and_works_where_prefect_yaml_is() -> None:
    assert assigned("ENV").items() >= QUIET.items()
    for target in STAGES:
        user, command = stage(target)[-2:]
        assert user == "USER overnight", "something is installed without rights, or run with them"
        assert yaml.safe_load(command.removeprefix("CMD ")) == ["overnight", "--help"]
    assert instructions("FROM")[-1].endswith(" AS cpu"), "what is built where no target is named"
    assert any(run.startswith("useradd ") and run.endswith(" overnight") for run in instructions("RUN"))
    assert instructions("WORKDIR") == ["/app"]
    assert any("prefect.yaml" in copy and copy.endswith(" /app/") for copy in instructions("COPY"))
    assert "overnight" in PYPROJECT["project"]["scripts"]


def test_no_secret_is_written_down() -> None:
    assert not [name for name in assigned("ENV") | assigned("ARG") if SECRET.search(name)]


def test_the_base_is_pinned_to_the_patch_release() -> None:
    """Its Python is part of what was tried."""
    bases = (
        {line.split()[0] for line in instructions("FROM")}
        - {line.split()[-1] for line in instructions("FROM")}
        - {"scratch"}
    )
    (base,) = bases
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    stand_in = (DOCKER / "postgres" / "Dockerfile").read_text()
    assert f"FROM {base}\n" in stand_in and (DOCKER / "postgres" / "docker-entrypoint.sh").is_file()


def test_rapids_is_what_the_gpu_image_installs() -> None:
    assert any("-r constraints-gpu.txt" in line and "--no-deps" in line for line in stage("gpu-packages"))
    pinned = {line.partition("==")[0] for line in (DOCKER / "constraints-gpu.txt").read_text().splitlines()}
    assert "cudf-polars-cu13" in pinned
