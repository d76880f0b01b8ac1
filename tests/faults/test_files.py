"""docs/files.md names every file below a root, whole or left by a killed night."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults.conftest import PROJECT, Forks

PLACES = {"<id>": "[0-9a-f]{16}", "<day>": r"\d{4}-\d\d-\d\d", "<name>": "[^/]+", "<path>": ".+"}


def patterns() -> list[re.Pattern[str]]:
    rows = re.findall(r"^\| `([^`]+)` \|", (PROJECT / "docs" / "files.md").read_text(), re.MULTILINE)
    found = []
    for row in rows:
        text = re.escape(row)
        for name, pattern in PLACES.items():
            text = text.replace(name, pattern)
        found.append(re.compile(text))
    return found


def unnamed(root: Path) -> list[str]:
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert len(files) > 50
    return [file for file in files if not any(pattern.fullmatch(file) for pattern in patterns())]


def test_every_file_is_in_the_table(forks: Forks, root: Path, events: Path) -> None:
    for when in (["line", "^clean"], ["os.rename", "/.checkpoint-"], ["os.rename", "/evaluations/"]):
        assert forks.night(root, events, when=when).code < 0
        assert unnamed(root) == []
    assert forks.night(root, events).code == 0
    assert unnamed(root) == []
