"""Requirements of pyproject.toml, one a line: those of the project and of named extras, or with --only those of the extras."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print them; a name that is no extra ends with an error."""
    only, extras = "--only" in sys.argv, [word for word in sys.argv[1:] if word != "--only"]
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = [] if only else list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    print(*wanted, sep="\n")


if __name__ == "__main__":
    main()
