"""The compose files, that of the tree and that of a project, agree with the images, with the code and with Prefect.

`make image` starts every service of the first for real (tests/docker/test_image.py).
"""

from __future__ import annotations

import re
import shlex
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from flows.init.folder import contents
from flows.keeper import start, stop
from flows.pages import HEALTH, VARIABLE
from flows.pool import BY_HAND, NIGHTS, POOL
from tests.flows.conftest import LONG_SECONDS, clean_environment, free_port

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|AUTH", re.IGNORECASE)
REQUIRED = re.compile(r"(\$\{\w+:\?[^}]*\})+")  # variables without which compose does not start
PROJECT = contents("my-shop", "", "/data")
TEXTS = {"tree": (DOCKER / "compose.yaml").read_text(), "project": PROJECT["compose.yaml"]}
EXAMPLES = {"tree": (DOCKER / ".env.example").read_text(), "project": PROJECT[".env.example"]}
DEPLOYMENTS = {"tree": (ROOT / "prefect.yaml").read_text(), "project": PROJECT["prefect.yaml"]}
COMPOSE = yaml.safe_load(TEXTS["tree"])
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("overnight:")}
WORKERS = ("worker", "worker-gpu")
of_both = pytest.mark.parametrize("which", TEXTS)


def services_of(which: str) -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(TEXTS[which])["services"]
    return services


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


@of_both
def test_no_secret_is_written_down_or_has_a_default(which: str) -> None:
    """A secret is a required variable, also inside a URL, and the example of .env leaves it open."""
    for service in services_of(which).values():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert REQUIRED.fullmatch(str(value)), key
            if credentials := re.search(r"//[^/@]*?:(.*)@", str(value)):
                assert REQUIRED.fullmatch(credentials[1]), key
    example = dict(
        line.split("=", 1) for line in EXAMPLES[which].splitlines() if "=" in line and not line.startswith("#")
    )
    assert [value for name, value in example.items() if SECRET.search(name)] == [""]


@of_both
def test_env_names_what_compose_reads(which: str) -> None:
    read = set(re.findall(r"\$\{(\w+)", re.sub(r"(?m)^#.*$", "", TEXTS[which])))
    named = {line.split("=")[0] for line in EXAMPLES[which].splitlines() if "=" in line and not line.startswith("#")}
    assert read == named


@of_both
def test_images_are_pinned(which: str) -> None:
    images = {service["image"] for service in services_of(which).values()}
    for image in images:
        assert re.fullmatch(r"[\w-]+:\d+\.\d+(\.\d+)?(-\w+)?", image), image
    assert any(image.endswith(f":{VERSION}") for image in images)


@of_both
def test_one_service_builds_each_image(which: str) -> None:
    built = {
        service["image"]: service["build"]["target"] for service in services_of(which).values() if "build" in service
    }
    assert sorted(built.values()) == ["cpu", "gpu"]
    assert {service["image"] for service in services_of(which).values()} - set(built) == {"postgres:17.11-bookworm"}
    targets = (DOCKER / "Dockerfile").read_text() if which == "tree" else PROJECT["Dockerfile"]
    assert all(f" AS {target}\n" in targets for target in built.values())
    assert not [
        name for name, service in services_of(which).items() if service.get("user") or service.get("privileged")
    ]
    assert targets.count("\nUSER overnight\n") == targets.count("\nCMD ")


@of_both
def test_ports_are_published_on_this_machine_only(which: str) -> None:
    published = [str(port) for service in services_of(which).values() for port in service.get("ports", ())]
    of_host = ["OVERNIGHT_PORT:-4200", "MLFLOW_PORT:-5000", "PAGES_PORT:-4210"]
    assert published == [f"127.0.0.1:${{{port}}}:{port[-4:]}" for port in of_host]
    assert not [name for name, service in services_of(which).items() if "network_mode" in service]


@of_both
def test_what_is_missing_stops_compose(which: str) -> None:
    text = TEXTS[which]
    for name in ("POSTGRES_PASSWORD", "OVERNIGHT_EVENTS", "COMPOSE_PROFILES"):
        uses = re.findall(rf"\$\{{{name}[^}}]*\}}", text)
        assert uses and all(":?" in use for use in uses), uses
    assert not re.findall(r"\$(?!\{\w+(?::[?-][^}]*)?\})", re.sub(r"(?m)^#.*$", "", text)), "compose would read this $"


def test_the_compose_file_of_a_project_is_that_of_the_tree_but_for_names() -> None:
    theirs = services_of("project")
    assert list(theirs) == list(SERVICES)
    for name, service in SERVICES.items():
        same = {key: value for key, value in service.items() if key not in ("image", "build", "command")}
        assert {key: theirs[name][key] for key in same} == same, name
    in_the_tree = SERVICES["deploy"]["command"][2].replace("flows/templates/silent-runs.yaml", "silent-runs.yaml")
    assert theirs["deploy"]["command"][2] == in_the_tree
    assert "silent-runs.yaml" in PROJECT


def test_the_deployments_of_a_project_are_those_of_the_tree_of_its_dataset() -> None:
    """But for where the flows are, as there is no tree, and for the dataset."""
    tree, project = (yaml.safe_load(DEPLOYMENTS[which])["deployments"] for which in ("tree", "project"))
    for ours, theirs in zip(tree, project, strict=True):
        assert theirs.pop("entrypoint") == ours.pop("entrypoint").replace("/", ".").replace(".py:", ".")
        named = theirs.pop("parameters", {})
        assert named.get("data", named).get("dataset", "my-shop.yaml") == "my-shop.yaml"
        ours.pop("parameters", None)
        assert theirs == ours


@of_both
def test_every_service_has_a_health_check_or_ends(which: str) -> None:
    for name, service in services_of(which).items():
        check = service["healthcheck"]
        assert check.get("test") or (check == {"disable": True} and service["restart"] == "no"), name


def test_one_worker_runs_by_the_profile_and_the_other_has_a_gpu() -> None:
    assert [SERVICES[name]["profiles"] for name in WORKERS] == [["cpu"], ["gpu"]]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert not [name for name, service in SERVICES.items() if "profiles" in service and name not in WORKERS]


def test_services_wait_for_what_they_need() -> None:
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    healthy, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert waits == {
        "postgres": {},
        "server": {"postgres": healthy},
        "mlflow": {},
        "pages": {},
        "deploy": {"server": healthy},
        **{name: {"server": healthy, "mlflow": healthy, "deploy": done} for name in WORKERS},
    }
    assert SERVICES["deploy"]["restart"] == "no", "a job that ends would be started for ever"


def test_health_checks_leave_a_busy_machine_minutes() -> None:
    for name in ("postgres", "server", "mlflow", "pages", *WORKERS):
        check = SERVICES[name]["healthcheck"]
        assert check["start_period"].endswith("m") and int(check["start_period"][:-1]) >= 5, name
        assert int(check["timeout"].removesuffix("s")) >= 30, name
        assert SERVICES[name]["stop_grace_period"] == "2m", name


def test_health_checks_ask_what_the_services_answer() -> None:
    assert (
        health_url("server")
        == f"http://127.0.0.1:{SERVICES['server']['environment']['PREFECT_SERVER_API_PORT']}/api/health"
    )
    assert (
        urlsplit(health_url("mlflow")).port == urlsplit(SERVICES["worker"]["environment"]["MLFLOW_TRACKING_URI"]).port
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
    for name in ("deploy", *WORKERS):
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

    if words[0] in ("mlflow", "python"):
        return  # tests below start them
    assert words[0] == "prefect"
    _app.parse_args([word for word in words[1:] if word != "--no-prompt"], exit_on_error=False, print_error=False)


@of_both
def test_runs_link_to_where_the_pages_are_published(which: str) -> None:
    services = services_of(which)
    (published,) = services["pages"]["ports"]
    for name in WORKERS:
        assert services[name]["environment"][VARIABLE] == f"http://{published.rpartition(':')[0]}"
    words, check = shlex.split(services["pages"]["command"]), health_url("pages")
    assert words[:3] == ["python", "-m", "flows.pages"] and words[words.index("--host") + 1] == "0.0.0.0"
    assert words[words.index("--port") + 1] == published.rpartition(":")[2] == str(urlsplit(check).port)
    assert urlsplit(check).path == HEALTH
    assert all(volume["read_only"] for volume in services["pages"]["volumes"])


def test_mlflow_is_started_without_its_assistant(tmp_path: Path) -> None:
    """It would run shell commands for whoever reaches the port; and who asks by another name is refused, as before."""
    pytest.importorskip("mlflow")
    port = free_port()
    text = SERVICES["mlflow"]["command"].replace("0.0.0.0", "127.0.0.1").replace("/mlflow/", f"{tmp_path}/")
    words = [word if word != "5000" else str(port) for word in shlex.split(text)]
    environment = clean_environment() | {key: str(value) for key, value in SERVICES["mlflow"]["environment"].items()}
    log = (tmp_path / "log").open("wb")
    process = start([sys.executable, "-m", *words], environment, tmp_path, output=log)

    def status(path: str, host: str = f"127.0.0.1:{port}") -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
        try:
            return int(urllib.request.urlopen(request, timeout=LONG_SECONDS).status)
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return 0

    try:
        while not (answer := status("/health")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.5)
        assert answer == 200
        assert status("/ajax-api/3.0/mlflow/assistant/config") == 404
        assert status("/ajax-api/2.0/mlflow/experiments/get?experiment_id=0") == 200
        assert status("/ajax-api/2.0/mlflow/experiments/get?experiment_id=0", "evil.example") == 403
    finally:
        stop(process)
        log.close()


def test_prefect_has_the_settings_that_the_services_are_given() -> None:
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_valid_setting_names

    names = {key for service in OURS.values() for key in service.get("environment", {})} | set(
        re.findall(r"\b(PREFECT_\w+)=", (DOCKER / "Dockerfile").read_text())
    )
    given = {name for name in names if name.startswith("PREFECT_")}
    assert given and given <= _get_valid_setting_names(Settings)


@of_both
def test_one_pool_has_one_slot_for_nights_and_serves_the_deployments(which: str) -> None:
    made, *_, deployed, limited = of_service("deploy")
    (worker,) = of_service("worker")
    deployments = yaml.safe_load(DEPLOYMENTS[which])["deployments"]
    assert made[:4] == ["prefect", "work-pool", "create", POOL]
    assert limited == ["prefect", "work-queue", "set-concurrency-limit", NIGHTS, "1", "--pool", POOL]
    assert deployed == ["prefect", "deploy", "--all"]
    assert (
        {deployment["work_pool"]["name"] for deployment in deployments}
        == {worker[worker.index("--pool") + 1]}
        == {POOL}
    )
    queues = {deployment["entrypoint"]: deployment["work_pool"]["work_queue_name"] for deployment in deployments}
    queues = {re.split(r"[.:]", entrypoint)[-1]: queue for entrypoint, queue in queues.items()}
    assert {queues.pop(name) for name in ("promote", "rollback")} == {BY_HAND}
    assert set(queues.values()) == {NIGHTS} and len(queues) == 4


def test_silent_runs_leave_time_for_several_heartbeats() -> None:
    heartbeat = int(SERVICES["worker"]["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    automation = yaml.safe_load(PROJECT["silent-runs.yaml"])
    assert heartbeat >= 30, "Prefect's least"
    assert automation["trigger"]["within"] >= 10 * heartbeat
    lines = [words[1:] for words in of_service("deploy") if "automation" in words]
    assert lines == [
        ["automation", "inspect", automation["name"]],
        ["automation", "delete", automation["name"]],
        ["automation", "create", "--from-file", "flows/templates/silent-runs.yaml"],
    ]
    assert (ROOT / "flows/templates/silent-runs.yaml").is_file()
