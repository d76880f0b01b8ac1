"""Pages with Python keep their word: blocks run in the order shown and print what is shown, pictures are what they draw."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import pages
from tests.slow import SLOW

MOST_BYTES = 20_000  # of a picture in the repository
# Six models are compared on three days; the newest two, fewer trainings, give what is shown within what is `alike`.
TWO_DAYS = ("folds=3", "folds=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pages run, one after the other, so that the second finds what the first one trained."""
    return tmp_path_factory.mktemp("pages")


@pytest.mark.parametrize("page", pages.PAGES)
def test_blocks_print_what_is_shown(page: str, folder: Path) -> None:
    ran = pages.run(page, folder, ("", "") if SLOW else TWO_DAYS)
    assert len(ran.blocks) >= 8 and sum(bool(shown) for shown, _ in ran.blocks) >= 8
    for shown, printed in ran.blocks:
        assert pages.alike(shown, printed), f"{page} shows:\n{shown}\nprinted was:\n{printed}"
    for picture in pages.pictures(page):
        drawn = (folder / picture.name).read_text()
        assert pages.labels(drawn) == pages.labels(picture.read_text()), picture
        assert picture.stat().st_size < MOST_BYTES


def test_the_comparison_that_is_cut_short_is_in_the_tutorial() -> None:
    assert (pages.DOCS / "tutorial.md").read_text().count(TWO_DAYS[0]) == 1


def test_what_is_shown_is_compared() -> None:
    assert pages.alike("│ ease ┆ 0.2396 │\n['lamp-0001']", "│ ease ┆ 0.2410 │\n['rug-0002']")
    for other in ("│ vstan ┆ 0.2396 │\n['lamp-0001']", "│ ease ┆ 0.4 │\n['lamp-0001']", "│ ease ┆ 0.2396 │\nTrue", ""):
        assert not pages.alike("│ ease ┆ 0.2396 │\n['lamp-0001']", other)


@pytest.mark.parametrize("page", pages.PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (pages.DOCS / page).read_text()):
        assert target.startswith("http") or (pages.DOCS / target).exists(), target
