"""An image without Docker: a folder for its file system, a virtual environment for its Python, its user if we are root."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import string
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from recipe import RecipeError, Step, assignments, exec_form

# Paths in the image, other than those that mean the same here; not the path of a URL.
IMAGE_PATH = re.compile(r"(?<![\w/.:~-])/(?!(?:usr|bin|dev|lib|proc|etc)\b)(?=[a-z])")
# What the base image has of the programs here: no git, no compiler, no other Python.
BASE_PROGRAMS = ("sh", "cat", "chmod", "chown", "cp", "env", "id", "ls", "mkdir", "rm", "uname")
# How this machine reaches a package index; a real build has its own.
PASSED_ON = re.compile(r"PIP_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|(https?|no)_proxy", re.IGNORECASE)


class CommandError(RuntimeError):
    """A command that ended with another code than 0; the message holds the end of what it printed."""


class Image:
    """Applies the steps of a Dockerfile, then runs commands as a container would."""

    def __init__(self, root: Path, context: Path, arguments: Mapping[str, str]) -> None:
        self.root, self.context, self.build_arguments = root, context, arguments
        self.workdir, self.user, self.command = "/", "root", ["python3"]
        self.environment: dict[str, str] = {}
        self.arguments: dict[str, str] = {}
        self.users = {"root": (0, "/root")}
        for folder in ("bin", "tmp", "root"):
            (root / folder).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        for program in BASE_PROGRAMS:
            (root / "bin" / program).symlink_to(_found(program))

    def apply(self, step: Step, say: Callable[[str], None]) -> None:
        """Do what one instruction says.

        Raises:
            RecipeError: when it cannot be followed here.
            CommandError: when a RUN fails.
        """
        begun = time.monotonic()
        getattr(self, f"_{step.instruction.lower()}")(step.arguments)
        took = f"   ({time.monotonic() - begun:.1f} s)" if step.instruction in ("FROM", "RUN") else ""
        shown = " ".join(step.arguments.split())
        say(f"{step.instruction} {shown if len(shown) <= 110 else shown[:107] + '...'}{took}")

    def path(self, inside: str) -> Path:
        """Where a path of the image is on this machine."""
        return self.root / inside.lstrip("/")

    def mapped(self, text: str) -> str:
        """A command or value with the image's absolute paths turned into those of this machine."""
        return IMAGE_PATH.sub(f"{self.root}/", text)

    def started(
        self, words: list[str], environment: Mapping[str, str], output: int, build: bool = False
    ) -> subprocess.Popen[str]:
        """Start a command in the image; its output goes to the file descriptor `output`, its group is its own.

        While building, it is root's (ours) and pip's settings of this machine hold; afterwards neither.
        """
        uid, home = self.users[self.user]
        inside = self.environment | (self.arguments if build else {}) | dict(environment)
        inside = {"HOME": home, "LOGNAME": self.user, "LANG": "C.UTF-8", "TMPDIR": "/tmp"} | inside
        here = {name: value for name, value in os.environ.items() if build and PASSED_ON.fullmatch(name)}
        here["PATH"] = f"{self.root}/venv/bin:{self.root}/bin"
        other = {"user": uid, "group": uid, "extra_groups": []} if uid and os.geteuid() == 0 else {}
        return subprocess.Popen(
            [self.mapped(word) for word in words],
            env=here | {name: self.mapped(value) for name, value in inside.items()},
            cwd=self.path(self.workdir),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **other,  # type: ignore[call-overload]
        )

    def run(self, words: list[str], environment: Mapping[str, str] | None = None, build: bool = False) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            CommandError: when its exit code is not 0.
        """
        process = self.started(words, environment or {}, subprocess.PIPE, build)
        output, _ = process.communicate()
        if process.returncode:
            end = "\n".join(output.splitlines()[-30:])
            raise CommandError(f"exit code {process.returncode}: {shlex.join(words)}\n{end}")
        return str(output)

    def _from(self, arguments: str) -> None:
        tag = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-\w+", arguments)
        if not tag:
            raise RecipeError(f"FROM {arguments}: expected a slim Python with its full version")
        python = _python(f"python{tag[1]}")
        subprocess.run([python, "-m", "venv", self.root / "venv"], check=True)

    def _arg(self, arguments: str) -> None:
        self.arguments |= assignments(arguments)
        self.arguments |= {name: self.build_arguments[name] for name in self.arguments if name in self.build_arguments}

    def _env(self, arguments: str) -> None:
        self.environment |= assignments(self._expanded(arguments))

    def _workdir(self, arguments: str) -> None:
        self.workdir = self._expanded(arguments)
        self.path(self.workdir).mkdir(parents=True, exist_ok=True)

    def _copy(self, arguments: str) -> None:
        *sources, target = shlex.split(self._expanded(arguments))
        place = self.path(target) if target.startswith("/") else self.path(self.workdir) / target
        for name in sources:
            source = self.context / name
            if source.is_dir():
                shutil.copytree(source, place, dirs_exist_ok=True)
            elif source.is_file():
                goal = place / source.name if target.endswith("/") else place
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, goal)
            else:
                raise RecipeError(f"COPY {arguments}: {name} is not in the build context; does the ignore file say so?")

    def _run(self, arguments: str) -> None:
        if added := re.fullmatch(r"useradd --create-home --uid (\d+) (\w+)", arguments):
            self.users[added[2]] = (int(added[1]), f"/home/{added[2]}")
            home = self.path(f"/home/{added[2]}")
            home.mkdir(parents=True)
            if os.geteuid() == 0:
                os.chown(home, int(added[1]), int(added[1]))
            return
        if os.geteuid() != 0:  # there is no other user to give anything to
            arguments = re.sub(r"chown \S+( /\w+)+", "true", arguments)
        self.run(["sh", "-c", arguments], build=True)

    def _user(self, arguments: str) -> None:
        if arguments not in self.users:
            raise RecipeError(f"USER {arguments}: no useradd made that user")
        self.user = arguments

    def _cmd(self, arguments: str) -> None:
        self.command = exec_form(arguments)

    def _expanded(self, text: str) -> str:
        return string.Template(text).substitute(self.arguments | self.environment)


def _found(program: str) -> str:
    path = shutil.which(program)
    if not path:
        raise RecipeError(f"{program} is not installed here")
    return path


def _python(name: str) -> str:
    """An interpreter of that version which can make environments and which any user may run."""
    for folder in ("/usr/bin", "/usr/local/bin", *os.get_exec_path()):
        candidate = Path(folder) / name
        real = candidate.resolve()
        open_to_all = os.geteuid() != 0 or all(part.stat().st_mode & 0o001 for part in (real, *real.parents))
        if candidate.is_file() and open_to_all:
            works = subprocess.run([candidate, "-c", "import ensurepip, venv"], capture_output=True, check=False)
            if works.returncode == 0:
                return str(candidate)
    raise RecipeError(f"found no {name} that every user may run and that has venv and ensurepip")
