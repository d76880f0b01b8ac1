"""What the image and the compose file promise, read from the files; docker/try_image.py tries them for real."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from flows.environment import QUIET
from flows.serve import POOL

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
COMPOSE_TEXT = (DOCKER / "compose.yaml").read_text()
DOCKERFILE_TEXT = (DOCKER / "Dockerfile").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)["services"]
VARIABLES = {"POSTGRES_PASSWORD": "chosen", "OVERNIGHT_EVENTS": "/somewhere"}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|AUTH", re.IGNORECASE)
ONLY_VARIABLES = re.compile(r"(\$\{\w+:\?[^}]*\})+")


def load(name: str) -> ModuleType:
    """A module of docker/, which is no package: Prefect imports the PyPI package of that name."""
    specification = importlib.util.spec_from_file_location(name, DOCKER / f"{name}.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


recipe = load("recipe")
STEPS = recipe.read_dockerfile(DOCKERFILE_TEXT)


def arguments_of(instruction: str) -> list[str]:
    return [step.arguments for step in STEPS if step.instruction == instruction]


def environment() -> dict[str, str]:
    found: dict[str, str] = {}
    for arguments in arguments_of("ENV"):
        found |= recipe.assignments(arguments)
    return found


def scripts() -> dict[str, list[list[str]]]:
    """The commands of each service of ours as words, those of a shell script line by line."""
    found: dict[str, list[list[str]]] = {}
    for name, service in recipe.read_compose(DOCKER / "compose.yaml", VARIABLES).items():
        if "command" in service:
            words = recipe.words_of(service["command"])
            lines = re.split(r"\n|&&", words[2]) if words[0] == "sh" else [" ".join(words)]
            found[name] = [line.split() for line in lines if line.strip()]
    return found


def test_docker_is_no_package() -> None:
    assert not (DOCKER / "__init__.py").exists()
    import docker

    assert Path(docker.__file__).is_relative_to(sys.prefix), "Prefect would import our folder"


def test_ports_are_published_on_this_machine_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published, "the UI is not published"
    assert all(str(port).startswith("127.0.0.1:") for port in published), published


def test_no_password_is_written_down() -> None:
    """In compose.yaml a secret is a required variable, also inside a URL; the image has none at all."""
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert ONLY_VARIABLES.fullmatch(str(value)), key
            if credentials := re.search(r"//[^/@]*?:(.*)@", str(value)):
                assert ONLY_VARIABLES.fullmatch(credentials[1]), key
    assert not [name for name in environment() if SECRET.search(name)]
    assert not [arguments for arguments in arguments_of("ARG") if SECRET.search(arguments)]


def test_a_missing_password_or_events_folder_stops_compose() -> None:
    for name in VARIABLES:
        others = {other: value for other, value in VARIABLES.items() if other != name}
        with pytest.raises(recipe.RecipeError, match=f"{name} is not set"):
            recipe.read_compose(DOCKER / "compose.yaml", others)


def test_images_are_pinned() -> None:
    """The base to the patch release: its Python is part of what was tried."""
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", arguments_of("FROM")[0])
    images = {service["image"] for service in SERVICES.values()}
    assert f"overnight:{PYPROJECT['project']['version']}" in images
    for image in images:
        assert re.fullmatch(r"\w+:\d+\.\d+(\.\d+)?(-\w+)?", image), image


def test_services_wait_for_what_they_need() -> None:
    assert recipe.start_order(SERVICES) == ["postgres", "server", "deploy", "worker"]
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    healthy, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert waits["server"] == {"postgres": healthy}
    assert waits["deploy"] == {"server": healthy}
    assert waits["worker"] == {"server": healthy, "deploy": done}
    assert "healthcheck" in SERVICES["postgres"] and "healthcheck" in SERVICES["server"]


def test_the_server_is_on_postgresql_and_clients_never_start_their_own() -> None:
    assert SERVICES["server"]["environment"]["PREFECT_API_DATABASE_CONNECTION_URL"].startswith("postgresql+asyncpg://")
    for name in ("deploy", "worker"):
        assert SERVICES[name]["environment"]["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] == "false"
        assert SERVICES[name]["environment"]["PREFECT_API_URL"].startswith("http://server:4200/")


def test_the_versions_that_postgresql_needs_are_pinned() -> None:
    """SQLAlchemy 2.1 breaks the scheduler of Prefect 3.8."""
    assert re.search(r"^asyncpg==", CONSTRAINTS, re.MULTILINE)
    assert re.search(r"^SQLAlchemy==2\.0\.", CONSTRAINTS, re.MULTILINE)


def test_commands_exist() -> None:
    programs = {words[0] for lines in scripts().values() for words in lines} | {
        recipe.exec_form(arguments_of("CMD")[0])[0]
    }
    assert programs == {"prefect", "overnight"}
    for program in programs:
        assert (Path(sys.executable).parent / program).is_file(), program


def test_one_pool_with_one_slot_serves_the_deployment() -> None:
    made, limited = scripts()["deploy"][:2]
    worker = scripts()["worker"][0]
    deployment = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"][0]
    assert made[:4] == ["prefect", "work-pool", "create", POOL]
    assert limited[-2:] == [POOL, "1"]
    assert scripts()["deploy"][-1] == ["prefect", "--no-prompt", "deploy", "--all"]
    assert worker[worker.index("--pool") + 1] == deployment["work_pool"]["name"] == POOL


def test_silent_runs_leave_time_for_several_heartbeats() -> None:
    heartbeat = int(SERVICES["worker"]["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    automation = yaml.safe_load((DOCKER / "silent-runs.yaml").read_text())
    assert heartbeat >= 30, "Prefect's least"
    assert automation["trigger"]["within"] >= 3 * heartbeat
    assert ["prefect", "automation", "create", "--from-file", "docker/silent-runs.yaml"] in scripts()["deploy"]
    assert all(["automation", verb, automation["name"]] == found for verb, found in shell_automations())


def shell_automations() -> list[tuple[str, list[str]]]:
    lines = [[word for word in words if word != "--no-prompt"] for words in scripts()["deploy"]]
    return [(verb, words[1:4]) for words in lines for verb in ("inspect", "delete") if verb in words]


def test_every_package_is_copied_and_nothing_that_the_build_cannot_see() -> None:
    packages = {pattern.rstrip("*") for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    copied = {name for arguments in arguments_of("COPY") for name in arguments.split()[:-1]}
    assert packages and packages <= copied
    assert {"prefect.yaml", "constraints.txt"} <= copied
    sent = {file.as_posix() for file in recipe.context_files(ROOT, (DOCKER / "Dockerfile.dockerignore").read_text())}
    for name in copied:
        assert name in sent or any(file.startswith(f"{name}/") for file in sent), name
    tops = {file.split("/")[0] for file in sent}
    assert tops == {name.split("/")[0] for name in copied}, "more is sent to the build than it uses"


def test_secrets_data_and_leftovers_stay_outside_the_build(tmp_path: Path) -> None:
    for name in (".env", "docker/.env", ".git/config", ".venv/x.py", "demo-shop/items.parquet", "flows/retrain.py",
                 "flows/__pycache__/retrain.pyc", "modeling/losses/__pycache__/a.pyc"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sent = recipe.context_files(tmp_path, (DOCKER / "Dockerfile.dockerignore").read_text())
    assert [file.as_posix() for file in sent] == ["flows/retrain.py"]


def test_every_installation_is_constrained_and_torch_is_the_pinned_one() -> None:
    installations = [part for run in arguments_of("RUN") for part in run.split("&&") if "pip install" in part]
    assert installations and all("-c constraints.txt" in part for part in installations)
    torch = next(item for item in PYPROJECT["project"]["dependencies"] if item.startswith("torch=="))
    assert torch in installations[0].split() and torch in CONSTRAINTS.split()
    assert "--index-url https://download.pytorch.org/whl/cpu" in arguments_of("ARG")[0]
    assert not [part for part in installations[1:] if "TORCH_INDEX" in part], "that index lacks our other pins"


def test_the_image_is_quiet_rootless_and_works_where_prefect_yaml_is() -> None:
    assert environment().items() >= QUIET.items()
    assert arguments_of("USER")[-1] not in ("root", "0")
    assert STEPS[-2].instruction == "USER", "something is installed without rights, or run with them"
    assert arguments_of("WORKDIR") == ["/app"]
    assert recipe.exec_form(arguments_of("CMD")[0]) == ["overnight", "--help"]


def test_code_comes_after_dependencies() -> None:
    """Else each edit installs everything again."""
    order = [step.arguments for step in STEPS]
    dependencies = next(place for place, text in enumerate(order) if "requirements.txt" in text)
    assert all(
        order.index(f"{name} {name}") > dependencies for name in ("flows", "modeling", "preprocessing", "schemas")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [("FROM x\nHEALTHCHECK NONE\n", "HEALTHCHECK"), ("COPY --from=build a b\n", "--from"), ("RUN a \\\n", "goes on")],
)
def test_what_is_not_understood_is_refused(text: str, said: str) -> None:
    with pytest.raises(recipe.RecipeError, match=said):
        recipe.read_dockerfile(text)


def test_instructions_span_lines() -> None:
    steps = recipe.read_dockerfile('# why\nRUN a \\\n  # inside\n  && b\nCMD ["c"]\n')
    assert steps == [(2, "RUN", "a && b"), (5, "CMD", '["c"]')]


def test_ignore_rules_decide_as_dockers(tmp_path: Path) -> None:
    for name in ("a/b.py", "a/__pycache__/b.pyc", "d/keep.yaml", "d/other", "secret", ".git/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    rules = "# some\n*\n!a\n!d/keep.yaml\n**/__pycache__\n"
    assert [file.as_posix() for file in recipe.context_files(tmp_path, rules)] == ["a/b.py", "d/keep.yaml"]
    assert len(recipe.context_files(tmp_path, "d\n")) == 4
    assert len(recipe.context_files(tmp_path, "*.py\n")) == 6, "one star stays within its folder"
    assert len(recipe.context_files(tmp_path, "**/*.py\n")) == 5


def test_compose_variables(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services: {a: {b: '${A:-x}/${B:-y}/$$', c: [1, '${A}']}}")
    assert recipe.read_compose(file, {"A": "1"}) == {"a": {"b": "1/y/$", "c": [1, "1"]}}
    file.write_text("services: {a: {b: $(date)}}")
    with pytest.raises(recipe.RecipeError, match="cannot read"):
        recipe.read_compose(file, {})
