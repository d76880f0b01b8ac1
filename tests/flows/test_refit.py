"""A night whose promoted model is trained again with the day it was tested on: whole, killed in the refit, and the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.in_service import keeps_seen
from schemas.artifacts import Artifacts
from tests.flows.conftest import QUICK, overnight, run_and_kill, summary_of

REFIT = [*QUICK, "--set=training.refit=true", "--json"]


@pytest.fixture(scope="module")
def first(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """A night before the last one."""
    root = tmp_path_factory.mktemp("refit")
    until = _days(shop)[-2]
    return root, summary_of(overnight("retrain", "--source", shop, "--root", root, "--until", until, *REFIT))


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
    assert served.facts["epochs"] == evaluated.facts["epochs"] == 6
    assert served.parameters == evaluated.parameters, "the same recipe"
    page = Path(str(summary["report"])).read_text()
    assert f"In service is {served.name}: {evaluated.name}, which was tested on {tested} here, trained again" in page
    assert keeps_seen(artifacts, served.folder), "as the evaluated model was measured"
    again = overnight("retrain", "--source", shop, "--root", root, "--until", tested, *REFIT)
    assert "Nothing to do" in again.stdout
    assert summary_of(again) == summary | {"nothing_to_do": True}


@pytest.mark.fault("killed while the promoted model is refit", outcome="goes on")
def test_killed_in_the_refit_the_next_run_goes_on_to_the_same_bits(
    shop: Path, first: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    arguments = ["retrain", "--source", shop, "--root", tmp_path, "--until", _days(shop)[-2], *REFIT]
    run_and_kill(lambda line: "'promote'" in line and "loss" in line and "(5" in line, *arguments)
    assert not list((tmp_path / "champions").glob("*.json")), "nothing is in service before the refit is whole"
    done = overnight(*arguments)
    assert "Going on from step" in done.stderr and "'train' - Model" in done.stderr
    summary = summary_of(done)
    assert summary["in_service"] == first[1]["in_service"]
    weights = [(root / str(summary["in_service"]) / "model.safetensors").read_bytes() for root in (first[0], tmp_path)]
    assert weights[0] == weights[1]


def test_the_next_night_is_compared_with_the_refit_and_may_start_from_it(
    shop: Path, first: tuple[Path, dict[str, object]]
) -> None:
    root, summary = first
    warm = ["--set=training.start_from=champion", "--set=training.warm_epochs=2"]
    night = summary_of(overnight("retrain", "--source", shop, "--root", root, *REFIT, *warm))
    training = night["training"]
    assert night["compared"] is True and "of the model in service" in str(night["verdict"])
    assert training["start_from"] == summary["in_service"], "it learned from the days before this night"  # type: ignore[index]
    served = Artifacts(root).get(str(night["in_service"]))
    if night["promoted"]:
        assert served.facts["start_from"] == summary["in_service"] and served.facts["epochs"] == 2
        assert served.facts["read_sessions"] > training["read_sessions"]  # type: ignore[index]
    back = overnight("retrain", "--source", shop, "--root", root, "--until", str(summary["test_day"]), *REFIT)
    past = summary_of(back)
    assert past["in_service"] == night["in_service"], "a past night does not unseat a later model"
