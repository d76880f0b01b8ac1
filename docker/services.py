"""The services of compose.yaml as containers of buildah: their commands, environment, volumes and health checks as written.

Not as Docker runs them: no init, no restarts, and one network for all, in which every service's name is 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from buildah import Buildah

VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}")
PATIENCE_SECONDS, STOP_SECONDS = 1800, 300  # for health and for an end; a busy machine is no failure
# The process itself can be sent signals once it has said its number; buildah would pass on none of them.
SAY_PID = ["sh", "-c", 'echo "pid $$"; exec "$@"', "sh"]


def read_services(compose: Path, variables: Mapping[str, str], profiles: Collection[str]) -> dict[str, Any]:
    """The services of a compose file in these profiles or in none.

    `${NAME:?why}` is taken from `variables` and `${NAME:-default}` from the file.
    """
    text = VARIABLE.sub(lambda match: variables.get(match[1], match[2] or ""), compose.read_text())
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    wanted = {name: set(service.get("profiles", profiles)) & set(profiles) for name, service in services.items()}
    return {name: service for name, service in services.items() if wanted[name]}


def words_of(command: str | list[str]) -> list[str]:
    """A command, or the `test` of a health check, as words."""
    words = shlex.split(command) if isinstance(command, str) else command
    return words[1:] if words[0] == "CMD" else words


class Services:
    """All services, up while the block lasts; `folder` keeps their volumes and logs for the next time."""

    def __init__(self, store: Buildah, services: Mapping[str, Any], folder: Path) -> None:
        self.store, self.services, self.folder = store, services, folder
        self.running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        folder.mkdir(exist_ok=True)
        self.hosts = folder / "hosts"
        self.hosts.write_text(f"127.0.0.1 localhost {' '.join(services)}\n")

    def __enter__(self) -> Self:
        waits = {name: service.get("depends_on", {}) for name, service in self.services.items()}
        try:
            for name in TopologicalSorter(waits).static_order():
                begun = time.monotonic()
                conditions = [wait[name]["condition"] for wait in waits.values() if name in wait]
                self._start(name, ends="service_completed_successfully" in conditions)
                print(f"service {name} is up or done   ({time.monotonic() - begun:.0f} s)", flush=True)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def run(self, name: str, *words: str) -> str:
        """Run a command in the container of a service, with its environment and volumes, and return what it printed.

        Raises:
            RuntimeError: when it fails, with the end of what it printed.
        """
        done = subprocess.run(self._words(name, words), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}: {shlex.join(words)}\n{_end(done.stdout + done.stderr)}")
        return str(done.stdout)

    def _words(self, name: str, words: tuple[str, ...] | list[str]) -> list[str]:
        service = self.services[name]
        environment = {key: str(value) for key, value in service.get("environment", {}).items()}
        volumes = [f"{self.hosts}:/etc/hosts:ro"]
        for volume in service.get("volumes", ()):
            source = volume["source"] if volume["type"] == "bind" else self._volume(name, volume)
            volumes.append(f"{source}:{volume['target']}:{'ro' if volume.get('read_only') else 'rw'}")
        return self.store.run_words(name, words, environment, volumes)

    def _volume(self, name: str, volume: Mapping[str, Any]) -> Path:
        """The folder of a named volume. A new one belongs to the owner of its place in the image, as Docker's does."""
        folder = self.folder / "volumes" / str(volume["source"])
        if not folder.exists():
            folder.mkdir(parents=True)
            place = Path(self.store("mount", name)) / volume["target"].lstrip("/")
            if place.exists():
                os.chown(folder, place.stat().st_uid, place.stat().st_gid)
            self.store("umount", name)
        return folder

    def _start(self, name: str, ends: bool) -> None:
        service = self.services[name]
        self.store.fresh(service["image"], name)
        # buildah runs no entry point, so that of the database's image, which has no command of its own here, is named.
        words = words_of(service["command"]) if "command" in service else ["docker-entrypoint.sh", "postgres"]
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(self._words(name, [*SAY_PID, *words]), stdout=file, stderr=subprocess.STDOUT)
        self.running[name] = process, log
        if ends:
            if process.wait(PATIENCE_SECONDS):
                raise RuntimeError(f"{name} failed:\n{_end(log.read_text())}")
            del self.running[name]
            return
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with code {process.returncode}:\n{_end(log.read_text())}")
            try:
                self.run(name, *words_of(service["healthcheck"]["test"]))
                return
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(2)

    def _stop(self) -> None:
        """SIGTERM to each, last first, and SIGKILL to what does not heed it."""
        for process, log in reversed(self.running.values()):
            with contextlib.suppress(ProcessLookupError, IndexError, ValueError):
                os.kill(int(log.read_text().split()[1]), signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        self.running.clear()


def _end(text: str) -> str:
    return "\n".join(text.splitlines()[-30:])
