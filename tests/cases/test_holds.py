"""What is in service, held by hand: nights leave it, a person may change it, and a hold that goes on is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import in_service
from modeling.config import ModelConfig
from modeling.evaluation.pointer import champion_of
from modeling.stages import compare, evaluate, promote, train
from tests.cases.test_model_in_service import ANY, CONFIG, TRAINING, Shop, quiet
from tests.cases.two_nights import answers, models_of


@pytest.fixture
def shop(two_nights: Shop, tmp_path: Path) -> Shop:
    return two_nights.copy(tmp_path)


def test_what_is_held_stays_until_it_is_released(shop: Shop) -> None:
    _, second = models_of(shop)
    root = ["--root", shop.artifacts.root, "--dataset", "shop"]
    code, output = answers("promote", "--hold", "--because", "Christmas", *root)
    assert code == 0 and f"{second} is held by hand since" in output and "(Christmas)" in output
    facts = shop.night("", 6, seed=5)
    assert facts["compared"] and not facts["promote"] and facts["verdict"] == "hold"
    assert ": promote. But" in facts["reason"] and "(Christmas)" in facts["reason"] and "--release" in facts["reason"]
    assert shop.model.name == Path(second).name and shop.night("", 6, seed=5)["reused"]
    for words, line in ((["--hold"], "held by hand"), ([], "needs a model"), ([second, "--hold"], "held already")):
        code, output = answers("promote", *words, *root)
        assert code == 2 and line in output, output
    assert answers("promote", "--release", *root)[0] == 0
    assert answers("promote", "--release", *root)[0] == 2
    assert shop.night("", 6, seed=5)["promote"]
    champion = champion_of(shop.artifacts, "shop")
    assert champion and champion.model == facts["candidate"]
    assert [(note.action, note.because) for note in champion.notes] == [("hold", "Christmas"), ("release", "")]


def test_by_hand_a_held_model_is_changed_all_the_same(shop: Shop) -> None:
    first, second = models_of(shop)
    root = ["--root", shop.artifacts.root, "--dataset", "shop"]
    assert answers("promote", first, "--hold", *root)[0] == 0
    champion = in_service.rollback(shop.artifacts, "shop", "odd lists")
    assert champion.model == second and champion.hold
    assert answers("promote", first, "--release", *root)[0] == 0
    champion = champion_of(shop.artifacts, "shop")
    assert champion and champion.model == first and not champion.hold


def test_a_hold_that_begins_while_a_night_runs_holds(shop: Shop) -> None:
    _, second = models_of(shop)
    sessions = shop.prepare("", 6)
    candidate = train(shop.artifacts, sessions, ModelConfig(), TRAINING.model_copy(update={"seed": 5}), quiet)
    measured = evaluate(shop.artifacts, candidate, sessions, CONFIG, quiet)
    comparison = compare(shop.artifacts, "shop", measured, sessions, ANY, CONFIG, quiet)
    assert comparison.facts["promote"]
    in_service.keep(shop.artifacts, "shop", True, "a sale")
    said: list[str] = []
    champion = promote(shop.artifacts, comparison, said.append)
    assert champion and champion.model == second and "(a sale)" in said[-1]


def test_nothing_in_service_cannot_be_held(tmp_path: Path) -> None:
    code, output = answers("promote", "--hold", "--root", tmp_path, "--dataset", "shop")
    assert code == 2 and "Nothing is in service for 'shop'" in output


def test_a_hold_that_goes_on_is_said(shop: Shop) -> None:
    first, second = models_of(shop)
    root = ["--root", shop.artifacts.root, "--dataset", "shop"]
    assert answers("promote", "--hold", "--because", "a sale", *root)[0] == 0
    code, output = answers("rollback", *root)
    assert code == 0 and f"The hold goes on, now of {first}: held by hand since" in output and "--release" in output
    code, output = answers("promote", second, *root)
    assert code == 0 and f"The hold goes on, now of {second}" in output
    for words in (["--release"], ["rollback"]):
        code, output = answers(*(words if words == ["rollback"] else ["promote", *words]), *root)
        assert code == 0 and "The hold goes on" not in output, output


@pytest.mark.parametrize(
    "words", [["--hold", "--release"], ["--release", "--hold"], ["--release", "models/12", "--hold"]]
)
def test_a_hold_does_not_begin_and_end_at_once(shop: Shop, words: list[str]) -> None:
    code, output = answers("promote", *words, "--root", shop.artifacts.root, "--dataset", "shop")
    assert code == 2 and "--hold and --release are given together: leave one of them out." in output
    champion = champion_of(shop.artifacts, "shop")
    assert champion and not champion.hold and not champion.notes


@pytest.mark.parametrize(
    ("words", "pair"),
    [
        (["recommend", "i01", "--keep-seen", "--hide-seen"], "--keep-seen and --hide-seen"),
        (["prune", "--dry-run", "--remove"], "--remove and --dry-run"),
    ],
)
def test_both_names_of_an_option_are_refused(words: list[str], pair: str, tmp_path: Path) -> None:
    code, output = answers(*words, "--root", tmp_path)
    assert code == 2 and f"{pair} are given together" in output
