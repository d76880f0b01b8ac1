"""Databases for tests: SQLite always, PostgreSQL where its programs and a driver are there."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps them out of the way."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *map(Path, os.get_exec_path())]
    return next((folder for folder in found if (folder / "initdb").is_file()), None)


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a server of its own, empty; skips the test where there is none."""
    bin_ = programs()
    if bin_ is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql; pip install 'psycopg[binary]')")
    user = _user()
    with tempfile.TemporaryDirectory(prefix="overnight-postgresql-") as place:  # pytest's folders are its user's alone
        data = Path(place)
        if user:
            shutil.chown(data, user)
        with _running(bin_, data, user) as url:
            yield url


@contextlib.contextmanager
def _running(bin_: Path, data: Path, user: str | None) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*words: str) -> None:
        subprocess.run(words, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    (data / "secret").write_text("s3cret-word\n")
    (data / "secret").chmod(0o644)
    run(
        str(bin_ / "initdb"), "-D", str(data / "db"), "-U", "shop", "-A", "md5", "--pwfile", str(data / "secret"),
        "--locale", "C.UTF-8", "--no-sync",
    )  # fmt: skip
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c fsync=off"
    control = [str(bin_ / "pg_ctl"), "-D", str(data / "db"), "-w", "-t", "600"]
    run(*control, "-o", options, "-l", str(data / "log"), "start")
    try:
        yield f"postgresql+psycopg://shop:s3cret-word@127.0.0.1:{port}/postgres"
    finally:
        run(*control, "-m", "immediate", "stop")


def _user() -> str | None:
    """Whose server it is: PostgreSQL does not run as root."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
