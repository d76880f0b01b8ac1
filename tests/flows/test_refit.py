"""A night whose promoted model is trained again with the day it was tested on, and the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.in_service import keeps_seen
from schemas.artifacts import Artifacts
from tests.flows.conftest import QUICK, night_here, summary_of

REFIT = [*QUICK, "--set=training.refit=true", "--json"]


@pytest.fixture(scope="module")
def first(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """A night before the last one."""
    root = tmp_path_factory.mktemp("refit")
    until = _days(shop)[-2]
    return root, summary_of(night_here("--source", shop, "--root", root, "--until", until, *REFIT))


def _days(shop: Path) -> list[str]:
    return sorted(path.stem for path in (shop / "events").glob("*.parquet"))


def test_the_refit_serves_in_the_place_of_the_evaluated_model(
    shop: Path, first: tuple[Path, dict[str, object]]
) -> None:
    root, summary = first
    artifacts, tested = Artifacts(root), str(summary["test_day"])
    evaluated = artifacts.get(f"models/{Path(str(summary['artifacts']['models'])).name}")  # type: ignore[index]
    served = artifacts.get(str(summary["in_service"]))
    assert summary["promoted"] is True and served.name != evaluated.name
    assert summary["refit_of"] == served.facts["refit_of"] == evaluated.name
    assert json.loads((root / "champions" / "demo.json").read_text())["model"] == served.name
    assert served.facts["night"] == tested == evaluated.facts["test_day"] < served.facts["test_day"]
    assert served.facts["sessions"] > evaluated.facts["sessions"]
    assert served.facts["epochs"] == evaluated.facts["epochs"] == 4
    assert served.parameters == evaluated.parameters, "the same recipe"
    page = Path(str(summary["report"])).read_text()
    assert f"In service is {served.name}: {evaluated.name}, which was tested on {tested} here, trained again" in page
    assert keeps_seen(artifacts, served.folder), "as the evaluated model was measured"
    again = night_here("--source", shop, "--root", root, "--until", tested, *REFIT)
    assert "Nothing to do" in again.stdout
    assert summary_of(again) == summary | {"nothing_to_do": True}


def test_the_next_night_is_compared_with_the_refit_and_may_start_from_it(
    shop: Path, first: tuple[Path, dict[str, object]]
) -> None:
    root, summary = first
    warm = ["--set=training.start_from=champion", "--set=training.warm_epochs=2"]
    night = summary_of(night_here("--source", shop, "--root", root, *REFIT, *warm))
    training = night["training"]
    assert night["compared"] is True and "of the model in service" in str(night["verdict"])
    assert training["start_from"] == summary["in_service"], "it learned from the days before this night"  # type: ignore[index]
    served = Artifacts(root).get(str(night["in_service"]))
    if night["promoted"]:
        assert served.facts["start_from"] == summary["in_service"] and served.facts["epochs"] == 2
        assert served.facts["read_sessions"] > training["read_sessions"]  # type: ignore[index]
    back = night_here("--source", shop, "--root", root, "--until", str(summary["test_day"]), *REFIT)
    past = summary_of(back)
    assert past["in_service"] == night["in_service"], "a past night does not unseat a later model"
