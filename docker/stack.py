"""The services of compose.yaml as processes of this machine: started in order, checked as their health checks say."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from image import CommandError, Image
from recipe import RecipeError, seconds, start_order, words_of

PORTS = ("4200", "5432", "8080")  # of the containers; each is another, free one here
JOB_SECONDS = 180


class Stack:
    """The services, up while the block lasts."""

    def __init__(self, image: Image, services: Mapping[str, Any], sqlite: bool, say: Callable[[str], None]) -> None:
        self.image, self.services, self.say = image, services, say
        self.ports = {port: str(free_port()) for port in PORTS}
        self.logs = image.root / "logs"
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.postgres = None if sqlite else _postgres_programs()

    def __enter__(self) -> Self:
        self.logs.mkdir()
        try:
            for name in start_order(self.services):
                begun = time.monotonic()
                how = self._start(name)
                self.say(f"service {name}: {how}   ({time.monotonic() - begun:.1f} s)")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def url(self, service: str, path: str) -> str:
        """Where a published port of a service answers."""
        published = self.services[service]["ports"][0].split(":")
        return f"http://{published[0]}:{self.ports[published[-1]]}{path}"

    def here(self, text: str) -> str:
        """A value with the names and ports of the containers turned into those of this machine."""
        if not self.postgres and "postgresql" in text:
            return f"sqlite+aiosqlite:///{self.logs.parent}/tmp/prefect.db"
        names = "|".join(self.services)
        text = re.sub(rf"(?<=[/@])(?:{names})(?=:\d)|0\.0\.0\.0", "127.0.0.1", text)
        return re.sub(rf"\b(?:{'|'.join(PORTS)})\b", lambda port: self.ports[port[0]], text)

    def check_alive(self) -> None:
        """Raises RuntimeError with the end of its log when a service has ended; Docker would start it again, and again."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with code {process.returncode}:\n{self._tail(name)}")

    def _start(self, name: str) -> str:
        service = self.services[name]
        if service["image"].startswith("postgres:"):
            if not self.postgres:
                return "SQLite takes its place"
            return self._start_postgres(name, service)
        for volume in service.get("volumes", ()):
            self._mount(volume)
        environment = {key: self.here(str(value)) for key, value in service.get("environment", {}).items()}
        with (self.logs / f"{name}.log").open("w") as log:
            words = [self.here(word) for word in words_of(service["command"])]
            process = self.image.started(words, environment, log.fileno())
        self.processes[name] = process
        if self._is_job(name):
            wait_until(lambda: process.poll() is not None, JOB_SECONDS, f"{name} to end")
            if process.returncode == 0:
                del self.processes[name]
            self.check_alive()
            return "did its job"
        check = [self.here(word) for word in words_of(service["healthcheck"]["test"])]
        self._wait(name, lambda: self.image.run(check, environment))
        return "healthy"

    def _start_postgres(self, name: str, service: Mapping[str, Any]) -> str:
        """A cluster of its own, on loopback, with a password, as the official image makes it."""
        programs, settings = self.postgres, service["environment"]
        assert programs
        place = self.image.root / "postgres"
        place.mkdir()
        secret = place / "password"
        secret.write_text(settings["POSTGRES_PASSWORD"])
        owner: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
            for path in (place, secret):
                shutil.chown(path, "postgres", "postgres")
        user, port = settings["POSTGRES_USER"], self.ports["5432"]
        there = {"PATH": str(programs), "PGPORT": port, "PGPASSWORD": settings["POSTGRES_PASSWORD"], "LANG": "C.UTF-8"}

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            done = subprocess.run(words, env=there, cwd=place, capture_output=True, text=True, check=False, **owner)
            if done.returncode:
                raise CommandError(f"{words[0]}: {done.stdout}{done.stderr}")
            return done

        run("initdb", "--pgdata=data", f"--username={user}", "--pwfile=password", "--auth=scram-sha-256")
        with (self.logs / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                ["postgres", "-D", "data", "-h", "127.0.0.1", "-p", port, "-k", str(place)],
                env=there, cwd=place, stdout=log, stderr=log, text=True, start_new_session=True, **owner,
            )  # fmt: skip
        self._wait(name, lambda: run(*words_of(service["healthcheck"]["test"])))
        if settings["POSTGRES_DB"] != "postgres":
            run("createdb", "--host=127.0.0.1", f"--username={user}", settings["POSTGRES_DB"])
        return f"healthy, {run('postgres', '--version').stdout.strip()}"

    def _mount(self, volume: Mapping[str, Any]) -> None:
        """A bind is copied in, owned by us: where we are root, the image's user can only read it."""
        target = self.image.path(volume["target"])
        if volume["type"] == "bind":
            if not volume.get("read_only"):
                raise RecipeError(f"{volume}: only read-only folders are copied in")
            shutil.copytree(volume["source"], target, dirs_exist_ok=True)
        target.mkdir(parents=True, exist_ok=True)

    def _is_job(self, name: str) -> bool:
        conditions = [other.get("depends_on", {}).get(name, {}).get("condition") for other in self.services.values()]
        return "service_completed_successfully" in conditions

    def _wait(self, name: str, check: Callable[[], object]) -> None:
        health = self.services[name]["healthcheck"]
        allowed = seconds(health["interval"]) * health["retries"] + seconds(health.get("start_period", "0s"))

        def healthy() -> bool:
            self.check_alive()
            with contextlib.suppress(CommandError):
                check()
                return True
            return False

        wait_until(healthy, allowed, f"the health of {name}")

    def _tail(self, name: str) -> str:
        return "\n".join((self.logs / f"{name}.log").read_text().splitlines()[-25:])

    def _stop(self) -> None:
        """The stop signal to each, last first, as Docker's init would pass it on; SIGKILL after its grace period."""
        for name, process in reversed(self.processes.items()):
            begun, grace = time.monotonic(), seconds(self.services[name].get("stop_grace_period", "10s"))
            official_postgres = self.services[name]["image"].startswith("postgres:")
            process.send_signal(signal.SIGINT if official_postgres else signal.SIGTERM)  # its image says SIGINT
            try:
                process.wait(grace)
                self.say(f"service {name}: stopped   ({time.monotonic() - begun:.1f} s)")
            except subprocess.TimeoutExpired:
                self.say(f"service {name}: did not stop within {grace} s, killed")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def call(url: str, body: object = None) -> Any:
    """GET, or POST `body` as JSON; the answer's JSON, or its text when it is none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{url}: {error.code} {error.read().decode()[:500]}") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def wait_until(holds: Callable[[], bool], patience_seconds: float, what: str) -> None:
    """Ask twice a second until `holds`.

    Raises:
        RuntimeError: after `patience_seconds`.
    """
    deadline = time.monotonic() + patience_seconds
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {patience_seconds} s for {what}")
        time.sleep(0.5)


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres_programs() -> Path | None:
    """The folder of initdb, postgres, pg_isready and createdb; Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = (
        [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    )
    return folders[0] if folders else None
