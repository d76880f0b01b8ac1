"""Pages of documentation that run: their Python blocks in order, in one namespace and one folder, and what is shown after them.

`python -m tests.pages --write` runs the pages of PAGES and writes into them what their blocks print, and their pictures.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("tutorial.md", "recommender.md")  # in this order: the second goes on in the first one's folder
BLOCK = re.compile(r"^```python\n(.*?)^```\n(\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+\.svg)\)")
ITEM = re.compile(r"[a-z]+-\d{4}")
NUMBER = re.compile(r"-?\d+(\.\d+)?")
LEAST, SHARE = (
    0.05,
    0.3,
)  # how far numbers may be from those shown: other machines round otherwise, and so train otherwise


@dataclass
class Ran:
    """A page with what its blocks printed in place of what it shows, and what was shown and printed, by block."""

    text: str
    blocks: list[tuple[str, str]]


def run(page: str, folder: Path, instead: tuple[str, str] = ("", "")) -> Ran:
    """Run the blocks of a page in `folder`, with the second of `instead` for the first.

    What is shown after a block that shows nothing is empty.
    """
    text, namespace = (DOCS / page).read_text(), {"__name__": page}
    parts, blocks, done = [], [], 0
    with contextlib.chdir(folder), pl.Config():
        for match in BLOCK.finditer(text):
            code, shown = match[1].replace(*instead) if all(instead) else match[1], match[3]
            line = text[: match.start()].count("\n") + 1
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile("\n" * line + code, str(DOCS / page), "exec"), namespace)
            parts += [text[done : match.end(1)], "```\n"]
            if shown is not None:
                parts.append(f"\n```text\n{said.getvalue()}```\n")
            blocks.append((shown or "", said.getvalue()))
            done = match.end()
    return Ran("".join([*parts, text[done:]]), blocks)


def alike(shown: str, printed: str) -> bool:
    """Whether words are the same, item ids stand where there are some, and numbers are near."""
    return _alike(_words(shown), _words(printed))


def pictures(page: str) -> list[Path]:
    """The pictures of a page, where they lie."""
    return [DOCS / target for target in PICTURE.findall((DOCS / page).read_text())]


def labels(picture: str) -> list[str]:
    """The words of an SVG, without its numbers."""
    return [word for word in re.findall(r">([^<>\n]+)</t(?:ext|itle)>", picture) if not NUMBER.search(word)]


def _words(text: str) -> list[str]:
    return re.sub(r"[│┆┌┐└┘─═╞╡╪┬┴┼,'\[\](){}:]+", " ", text).split()


def _alike(shown: list[str], printed: list[str]) -> bool:
    return len(shown) == len(printed) and all(map(_same, shown, printed))


def _same(shown: str, printed: str) -> bool:
    if NUMBER.fullmatch(shown) and NUMBER.fullmatch(printed):
        return abs(float(shown) - float(printed)) <= max(LEAST, SHARE * abs(float(shown)))
    return shown == printed or bool(ITEM.fullmatch(shown) and ITEM.fullmatch(printed))


def main() -> None:
    """Write what the blocks print, and the pictures they make, into the pages."""
    sys.path.insert(0, str(DOCS.parent))
    with tempfile.TemporaryDirectory() as name:
        for page in PAGES:
            ran: Any = run(page, Path(name))
            (DOCS / page).write_text(ran.text)
            for picture in pictures(page):
                picture.parent.mkdir(exist_ok=True)
                shutil.copy(Path(name) / picture.name, picture)
            print(f"{page}: {len(ran.blocks)} blocks")


if __name__ == "__main__":
    main()
