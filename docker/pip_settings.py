"""This machine's pip configuration for the time of a build: a secret, and mounts in /mnt; no layer keeps any of it."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

SECTIONS = ("global", "install", ":env:")  # pip lets the later ones win


def build_options(folder: Path) -> list[str]:
    """Options of `buildah build` under which pip finds the indexes, wheels and certificates that it finds here.

    `folder` is made for the build; /mnt is empty in every image. Example: with `find-links = /opt/wheels`, the secret
    pip.conf says `find-links = /mnt/0` and /opt/wheels is mounted there, to be read only.
    """
    folder.mkdir()
    mounts: dict[str, str] = {}
    settings = {name: _inside(value, folder, mounts) for name, value in _settings().items()}
    lines = ["[global]", *(f"{name} = {value}" for name, value in settings.items())]
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    volumes = [f"--volume={source}:{target}:ro" for source, target in mounts.items()]
    return [f"--secret=id=pip.conf,src={folder / 'pip.conf'}", f"--volume={folder}:/mnt:ro", *volumes]


def _settings() -> dict[str, str]:
    """What `pip config list` says, by name; variables of the environment win, as they do for pip."""
    words = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in found and name != "config-file":
            found[section][name] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]


def _inside(value: str, folder: Path, mounts: dict[str, str]) -> str:
    """A setting whose paths of this machine are those of the build: files are copied to `folder`, folders mounted."""
    words = []
    for word in value.split():
        scheme, path = ("file://", Path(word[7:])) if word.startswith("file://") else ("", Path(word))
        if path.is_absolute() and path.is_file():
            place = f"{len(list(folder.iterdir()))}-{path.name}"
            shutil.copyfile(path, folder / place)
            words.append(f"{scheme}/mnt/{place}")
        elif path.is_absolute() and path.is_dir():
            mounted = path.parent if scheme else path  # the pages of an index lead to ../../files
            target = mounts.setdefault(str(mounted), f"/mnt/{len(list(folder.iterdir()))}")
            (folder / target.removeprefix("/mnt/")).mkdir(exist_ok=True)
            words.append(f"{scheme}{target}/{path.name}" if scheme else target)
        else:
            words.append(word)
    return " ".join(words)
