"""Dockerfile, ignore file and compose.yaml agree with each other, with the code and with Prefect; nothing is built here.

`make image` builds and runs them for real (tests/docker/test_image.py).
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement

from flows.environment import QUIET
from flows.pool import BY_HAND, NIGHTS, POOL

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("overnight:")}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|AUTH", re.IGNORECASE)
REQUIRED = re.compile(r"(\$\{\w+:\?[^}]*\})+")  # variables without which compose does not start


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
    return [name for line in instructions("COPY") for name in line.split()[:-1]]


def commands() -> list[tuple[str, list[str]]]:
    """Service and words of each command of ours; a shell script's line by line, without what it redirects."""
    lines = []
    for name, service in OURS.items():
        command = service["command"]
        for text in [command] if isinstance(command, str) else re.split(r"\n|&&", command[2]):
            if text.strip():
                lines.append((name, shlex.split(text.partition(">")[0])))
    return lines


def of_service(service: str) -> list[list[str]]:
    """The commands of one service, without the option that stands before Prefect's own command."""
    return [[word for word in words if word != "--no-prompt"] for name, words in commands() if name == service]


def health_url(service: str) -> str:
    """What the health check of a service of ours asks."""
    (url,) = re.findall(r'urlopen\("([^"]+)"', SERVICES[service]["healthcheck"]["test"][-1])
    return str(url)


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
    assert [line for line in others if line.startswith("!")] == [f"!{name}" for name in copied()]
    assert [line for line in others if not line.startswith("!")] == ["**/__pycache__", "**/*.pyc"]


def test_what_is_copied_is_code_and_text() -> None:
    suffixes = {
        file.suffix
        for name in copied()
        for file in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert suffixes <= {".py", ".yaml", ".j2", ".md", ".toml", ".txt", ".typed"}, suffixes


def test_every_installation_is_constrained_and_torch_is_the_pinned_one() -> None:
    installations = [part for run in instructions("RUN") for part in run.split("&&") if "pip install" in part]
    assert len(installations) == 3 and all("-c constraints.txt" in part for part in installations)
    pinned = next(line for line in CONSTRAINTS.split() if line.startswith("torch=="))
    assert pinned in installations[0].split()
    wanted = next(item for item in PYPROJECT["project"]["dependencies"] if item.startswith("torch"))
    assert Requirement(wanted).specifier.contains(pinned.removeprefix("torch=="))
    assert assigned("ARG")["TORCH_INDEX"] == "--index-url https://download.pytorch.org/whl/cpu"
    assert not [part for part in installations[1:] if "TORCH_INDEX" in part], "that index lacks our other pins"


def test_pips_configuration_is_a_secret_of_the_build_alone() -> None:
    for run in instructions("RUN"):
        assert ("pip install" in run) == run.startswith("--mount=type=secret,id=pip.conf "), run
    assert assigned("ARG")["PIP_CONFIG_FILE"] == "/run/secrets/pip.conf"
    assert not [name for name in assigned("ENV") if name.startswith("PIP_")]


def test_code_comes_after_dependencies() -> None:
    """Else each edit installs everything again."""
    lines = rules("Dockerfile")
    installed = next(place for place, line in enumerate(lines) if "-r /tmp/requirements.txt" in line)
    for name in ("flows", "modeling", "preprocessing", "schemas"):
        assert lines.index(f"COPY {name} {name}") > installed


def test_the_image_is_quiet_rootless_and_works_where_prefect_yaml_is() -> None:
    assert assigned("ENV").items() >= QUIET.items()
    user, command = rules("Dockerfile")[-2:]
    assert user == "USER overnight", "something is installed without rights, or run with them"
    assert any(run.startswith("useradd ") and run.endswith(" overnight") for run in instructions("RUN"))
    assert yaml.safe_load(command.removeprefix("CMD ")) == ["overnight", "--help"]
    assert instructions("WORKDIR") == ["/app"]
    assert "prefect.yaml ./" in " ".join(instructions("COPY"))
    assert "overnight" in PYPROJECT["project"]["scripts"]


def test_no_secret_is_written_down() -> None:
    """In compose.yaml a secret is a required variable, also inside a URL; the image has none at all."""
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert REQUIRED.fullmatch(str(value)), key
            if credentials := re.search(r"//[^/@]*?:(.*)@", str(value)):
                assert REQUIRED.fullmatch(credentials[1]), key
    assert not [name for name in assigned("ENV") | assigned("ARG") if SECRET.search(name)]


def test_images_are_pinned() -> None:
    """The base to the patch release: its Python is part of what was tried."""
    (base,) = instructions("FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    images = {service["image"] for service in SERVICES.values()}
    assert f"overnight:{PYPROJECT['project']['version']}" in images
    for image in images:
        assert re.fullmatch(r"\w+:\d+\.\d+(\.\d+)?(-\w+)?", image), image


# What compose.yaml starts


def test_the_stand_in_for_postgresql_stands_on_the_same_base() -> None:
    stand_in = (DOCKER / "postgres" / "Dockerfile").read_text()
    assert f"FROM {instructions('FROM')[0]}\n" in stand_in
    assert (DOCKER / "postgres" / "docker-entrypoint.sh").is_file()


def test_the_image_is_built_from_our_dockerfile_by_one_service() -> None:
    built = [service["build"] for service in SERVICES.values() if "build" in service]
    assert built == [{"context": "..", "dockerfile": "docker/Dockerfile"}]


def test_ports_are_published_on_this_machine_only() -> None:
    published = [str(port) for service in SERVICES.values() for port in service.get("ports", ())]
    assert published == ["127.0.0.1:${OVERNIGHT_PORT:-4200}:4200"]
    assert not [name for name, service in SERVICES.items() if "network_mode" in service or service.get("privileged")]


def test_a_missing_password_or_events_folder_stops_compose() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "OVERNIGHT_EVENTS"):
        uses = re.findall(rf"\$\{{{name}[^}}]*\}}", text)
        assert uses and all(":?" in use for use in uses), uses
    assert not re.findall(r"\$(?!\{\w+(?::[?-][^}]*)?\})", re.sub(r"(?m)^#.*$", "", text)), "compose would read this $"


def test_services_wait_for_what_they_need() -> None:
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    healthy, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert waits == {
        "postgres": {},
        "server": {"postgres": healthy},
        "deploy": {"server": healthy},
        "worker": {"server": healthy, "deploy": done},
    }
    assert SERVICES["deploy"]["restart"] == "no", "a job that ends would be started for ever"


def test_health_checks_leave_a_busy_machine_minutes() -> None:
    for name in ("postgres", "server", "worker"):
        check = SERVICES[name]["healthcheck"]
        assert check["start_period"].endswith("m") and int(check["start_period"][:-1]) >= 5, name
        assert int(check["timeout"].removesuffix("s")) >= 30, name
        assert SERVICES[name]["stop_grace_period"] == "2m", name


def test_health_checks_ask_what_the_services_answer() -> None:
    assert (
        health_url("server")
        == f"http://127.0.0.1:{SERVICES['server']['environment']['PREFECT_SERVER_API_PORT']}/api/health"
    )
    port = SERVICES["worker"]["environment"]["PREFECT_WORKER_WEBSERVER_PORT"]
    assert health_url("worker") == f"http://127.0.0.1:{port}/health"
    assert "--with-healthcheck" in of_service("worker")[0]
    postgres = SERVICES["postgres"]
    for option, value in (("--username", "POSTGRES_USER"), ("--dbname", "POSTGRES_DB")):
        test = postgres["healthcheck"]["test"]
        assert test[test.index(option) + 1] == postgres["environment"][value]


def test_a_worker_of_prefect_answers_there() -> None:
    from prefect.workers.server import build_healthcheck_server
    from starlette.testclient import TestClient

    class Polling:
        def is_worker_still_polling(self, **options: object) -> bool:
            return True

    app = build_healthcheck_server(Polling(), 30).config.app
    assert TestClient(app).get(urlsplit(health_url("worker")).path).status_code == 200


def test_the_server_is_on_postgresql_and_clients_never_start_their_own() -> None:
    postgres, server = SERVICES["postgres"]["environment"], SERVICES["server"]["environment"]
    url = server["PREFECT_API_DATABASE_CONNECTION_URL"]
    assert (
        url
        == f"postgresql+asyncpg://{postgres['POSTGRES_USER']}:${{POSTGRES_PASSWORD:?}}@postgres:5432/{postgres['POSTGRES_DB']}"
    )
    for name in ("deploy", "worker"):
        assert SERVICES[name]["environment"]["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] == "false"
        assert (
            SERVICES[name]["environment"]["PREFECT_API_URL"] == f"http://server:{server['PREFECT_SERVER_API_PORT']}/api"
        )


def test_the_versions_that_postgresql_needs_are_pinned() -> None:
    """SQLAlchemy 2.1 breaks the scheduler of Prefect 3.8."""
    assert re.search(r"^asyncpg==", CONSTRAINTS, re.MULTILINE)
    assert re.search(r"^SQLAlchemy==2\.0\.", CONSTRAINTS, re.MULTILINE)


def test_volumes_are_declared_and_events_are_read_only() -> None:
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    assert {volume["source"] for volume in mounts if volume["type"] == "volume"} == set(COMPOSE["volumes"])
    assert all(volume.get("read_only") for volume in mounts if volume["type"] == "bind")
    worker = SERVICES["worker"]
    assert {worker["environment"]["OVERNIGHT_SOURCE"], worker["environment"]["OVERNIGHT_ROOT"]} == {
        volume["target"] for volume in worker["volumes"]
    }


@pytest.mark.parametrize(("service", "words"), commands(), ids=lambda value: value if isinstance(value, str) else None)
def test_prefect_takes_the_commands_with_their_options(service: str, words: list[str]) -> None:
    from prefect.cli import app  # noqa: F401  (registers the commands)
    from prefect.cli._app import _app  # its own parser; running the commands would need a server

    assert words[0] == "prefect"
    _app.parse_args([word for word in words[1:] if word != "--no-prompt"], exit_on_error=False, print_error=False)


def test_prefect_has_the_settings_that_the_services_are_given() -> None:
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_valid_setting_names

    names = {key for service in OURS.values() for key in service.get("environment", {})} | set(assigned("ENV"))
    given = {name for name in names if name.startswith("PREFECT_")}
    assert given and given <= _get_valid_setting_names(Settings)


def test_one_pool_has_one_slot_for_nights_and_serves_the_deployments() -> None:
    made, *_, deployed, limited = of_service("deploy")
    (worker,) = of_service("worker")
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert made[:4] == ["prefect", "work-pool", "create", POOL]
    assert limited == ["prefect", "work-queue", "set-concurrency-limit", NIGHTS, "1", "--pool", POOL]
    assert deployed == ["prefect", "deploy", "--all"]
    assert (
        {deployment["work_pool"]["name"] for deployment in deployments}
        == {worker[worker.index("--pool") + 1]}
        == {POOL}
    )
    queues = {deployment["entrypoint"]: deployment["work_pool"]["work_queue_name"] for deployment in deployments}
    assert {queues.pop(f"flows/by_form.py:{name}") for name in ("promote", "rollback")} == {BY_HAND}
    assert set(queues.values()) == {NIGHTS} and len(queues) == 4


def test_silent_runs_leave_time_for_several_heartbeats() -> None:
    heartbeat = int(SERVICES["worker"]["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    automation = yaml.safe_load((DOCKER / "silent-runs.yaml").read_text())
    assert heartbeat >= 30, "Prefect's least"
    assert automation["trigger"]["within"] >= 10 * heartbeat
    lines = [words[1:] for words in of_service("deploy") if "automation" in words]
    assert lines == [
        ["automation", "inspect", automation["name"]],
        ["automation", "delete", automation["name"]],
        ["automation", "create", "--from-file", "docker/silent-runs.yaml"],
    ]
    assert "docker/silent-runs.yaml" in copied()
