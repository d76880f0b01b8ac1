"""Which model is in service: by the dataset's name, and changed by hand for as long as a person wants it so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows import in_service
from flows.cli import main
from modeling.config import ModelConfig
from modeling.evaluation.pointer import champion_of, changing, pointer_of, put_in_service
from modeling.stages import compare, evaluate, promote, train
from schemas import lock
from schemas.artifacts import Artifacts, Manifest
from schemas.errors import InputError
from schemas.owner import Owner
from tests.cases.test_model_in_service import ANY, CONFIG, TRAINING, Shop, quiet
from tests.cases.two_nights import answers, models_of


@pytest.fixture
def shop(two_nights: Shop, tmp_path: Path) -> Shop:
    return two_nights.copy(tmp_path)


def test_the_name_of_the_dataset_says_which_model_answers(shop: Shop) -> None:
    worse = ModelConfig.model_validate({"body": {"dim": 8, "num_layers": 1}})
    newest = train(shop.artifacts, shop.prepare("", 6), worse, TRAINING, quiet)
    given = ["recommend", "i01", "--root", shop.artifacts.root, "--json", "--dataset"]
    for dataset in ("shop", str(shop.folder / "shop.yaml")):
        code, output = answers(*given, dataset)
        assert code == 0 and Path(json.loads(output.splitlines()[-1])["model"]).name == shop.model.name
    for dataset, words in (("shpo", "Did you mean 'shop'? In service: shop."), ("demo", "In service: shop.")):
        code, line = answers(*given, dataset)
        assert code == 2 and f"Nothing is in service for '{dataset}'" in line and words in line, line
    code, output = answers(*given, "demo", "--model", newest.name)
    assert code == 0 and Path(json.loads(output.splitlines()[-1])["model"]).name == newest.id
    assert in_service.model_folder(shop.artifacts, "demo", str(newest.folder)) == newest.folder
    assert in_service.model_of(shop.artifacts, newest.id[:8]).name == newest.name
    with pytest.raises(InputError, match="is no model"):
        in_service.model_of(shop.artifacts, "comparisons/12")


def test_a_yaml_that_cannot_be_read_is_named(shop: Shop) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml"):
        in_service.model_folder(shop.artifacts, str(shop.folder / "gone.yaml"))


def test_a_rollback_goes_back_step_by_step(shop: Shop) -> None:
    first, second = models_of(shop)
    facts = shop.night("", 6, seed=5)
    third = facts["candidate"]
    assert facts["promote"], facts["reason"]
    assert models_of(shop) == [first, second, third]
    assert in_service.rollback(shop.artifacts, "shop", "odd lists").model == second
    assert in_service.rollback(shop.artifacts, "shop").model == first
    with pytest.raises(InputError, match=f"No model was in service for 'shop' before {first}"):
        in_service.rollback(shop.artifacts, "shop")
    champion = champion_of(shop.artifacts, "shop")
    assert champion and [change.by for change in champion.history] == ["comparison"] * 3 + ["rollback"] * 2
    assert champion.history[3].because == "odd lists" and champion.history[3].replaced == third


def test_each_rollback_goes_further_back(shop: Shop) -> None:
    """Also past a model that was in service twice, and what is put into service after a rollback begins from there."""
    first, second = models_of(shop)
    in_service.promote(shop.artifacts, "shop", first, "the old one was better")
    root = ["--root", shop.artifacts.root, "--dataset", "shop"]
    code, output = answers("rollback", *root)
    assert code == 0 and f"In service: {second}, in place of {first}" in output
    assert f"A further rollback puts back {first}." in output
    code, output = answers("rollback", *root)
    assert (
        code == 0
        and f"In service: {first}, in place of {second}" in output
        and "a further rollback is refused" in output
    )
    with pytest.raises(InputError, match=f"No model was in service for 'shop' before {first}"):
        in_service.rollback(shop.artifacts, "shop")
    in_service.promote(shop.artifacts, "shop", second)
    assert in_service.rollback(shop.artifacts, "shop").previous is None


def test_a_rollback_of_a_pointer_changed_by_hand_goes_by_what_it_says(shop: Shop) -> None:
    first, second = models_of(shop)
    path = pointer_of(shop.artifacts, "shop")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": first, "previous": second}))
    champion = in_service.rollback(shop.artifacts, "shop")
    assert (champion.model, champion.previous) == (second, first)


def test_the_same_night_again_does_not_undo_a_rollback(shop: Shop) -> None:
    first, second = models_of(shop)
    in_service.rollback(shop.artifacts, "shop", "odd lists")
    facts = shop.night("", 6)
    assert shop.model.name == Path(first).name and not facts["promote"] and not facts["reused"]
    assert f"{second} was taken out of service" in facts["reason"] and "(odd lists)" in facts["reason"]
    again = shop.night("", 6)
    assert again["reused"] and shop.model.name == Path(first).name
    other = shop.night("", 6, seed=3)
    assert other["compared"] and other["champion"] == first, "another model may still take over"
    in_service.promote(shop.artifacts, "shop", second, "it was the cache")
    assert shop.night("", 6)["reason"] == f"{second} is in service already."
    assert shop.model.name == Path(second).name


def test_a_pointer_changed_by_hand_is_not_changed_back(shop: Shop) -> None:
    first, second = models_of(shop)
    path = pointer_of(shop.artifacts, "shop")
    for history in (True, False):
        pointer = json.loads(path.read_text()) | {"model": first, "previous": second}
        if not history:
            del pointer["history"]
        path.write_text(json.dumps(pointer))
        facts = shop.night("", 6)
        assert shop.model.name == Path(first).name
        assert not facts["promote"] and "was changed since" in facts["reason"] and str(path) in facts["reason"]
        assert shop.night("", 6)["reused"]


def test_a_pointer_emptied_by_hand_stays_empty(tmp_path: Path) -> None:
    """The only model there ever was is taken out: the same night again does not put it back, another one may be."""
    shop = Shop(tmp_path)
    first = shop.night("", 5)["candidate"]
    path = pointer_of(shop.artifacts, "shop")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": None, "previous": first}))
    facts = shop.night("", 5)
    assert not facts["promote"] and "was changed since: nothing stays in service" in facts["reason"]
    assert champion_of(shop.artifacts, "shop") is None and shop.night("", 5)["reused"]
    with pytest.raises(InputError, match="Nothing is in service for 'shop'"):
        in_service.model_folder(shop.artifacts, "shop")
    assert shop.night("", 6)["promote"]


def test_an_old_verdict_is_not_applied_to_another_pointer(shop: Shop) -> None:
    """As when a person promotes while a night is being compared."""
    first, second = models_of(shop)
    sessions = shop.prepare("", 6)
    model = train(shop.artifacts, sessions, ModelConfig(), TRAINING, quiet)
    measured = evaluate(shop.artifacts, model, sessions, CONFIG, quiet)
    comparison = compare(shop.artifacts, "shop", measured, sessions, ANY, CONFIG, quiet)
    assert comparison.facts["promote"] and comparison.facts["champion"] == second
    in_service.rollback(shop.artifacts, "shop")
    lines: list[str] = []
    champion = promote(shop.artifacts, comparison, lines.append)
    assert champion and champion.model == first and "has changed since" in lines[0]


def test_a_model_put_into_service_by_hand_is_in_service(shop: Shop) -> None:
    sessions = shop.prepare("", 6)
    model = train(shop.artifacts, sessions, ModelConfig(), TRAINING, quiet)
    code, output = answers(
        "promote", model.id, "--dataset", "shop", "--root", shop.artifacts.root, "--because", "a try"
    )
    assert code == 0 and f"In service: {model.name}, in place of {models_of(shop)[-2]}" in output
    measured = evaluate(shop.artifacts, model, sessions, CONFIG, quiet)
    comparison = compare(shop.artifacts, "shop", measured, sessions, ANY, CONFIG, quiet)
    assert comparison.facts["reason"] == f"{model.name} is in service already."
    assert not comparison.facts["promote"]
    with pytest.raises(InputError, match="in service for 'shop' already"):
        in_service.promote(shop.artifacts, "shop", model.name)


def test_what_is_put_into_service_by_hand_must_be_a_whole_model_of_the_dataset(shop: Shop) -> None:
    first, second = models_of(shop)
    with pytest.raises(InputError, match=r"models/.* is a model of 'shop', not of 'demo'"):
        in_service.promote(shop.artifacts, "demo", first)
    with pytest.raises(InputError, match="is not there"):
        in_service.promote(shop.artifacts, "shop", "models/1234")
    weights = shop.artifacts.root / first / "model.safetensors"
    written, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    import os

    os.utime(weights, ns=(written.st_atime_ns, written.st_mtime_ns))
    for change in (in_service.promote, in_service.rollback):
        given = (shop.artifacts, "shop", first) if change is in_service.promote else (shop.artifacts, "shop")
        with pytest.raises(InputError, match="damaged"):
            change(*given)  # type: ignore[operator]
    assert shop.model.name == Path(second).name


def test_a_damaged_pointer_answers_nobody_and_is_mended_by_hand(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = models_of(shop)
    pointer_of(shop.artifacts, "shop").write_text("{")
    arguments = ["overnight", "recommend", "i01", "--root", str(shop.artifacts.root), "--dataset", "shop"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    with pytest.raises(InputError, match="not a champion pointer"):
        in_service.rollback(shop.artifacts, "shop")
    assert in_service.promote(shop.artifacts, "shop", first).model == first


def test_a_night_that_only_puts_the_pointer_back_has_done_something(shop: Shop) -> None:
    from flows.in_service import InService
    from flows.reports.report import summarise

    reused = Manifest(kind="models", id="0" * 16, root="/", created="2026-03-01T00:00:00Z", reused=True)  # type: ignore[arg-type]
    facts: dict[str, Any] = {"test_day": None, "reason": "", "promote": True, "compared": False, "metrics": {}}
    facts |= {"labels": {}, "cases": 0, "unknown_targets": 0, "filter_seen": False}
    reused = reused.model_copy(update={"facts": facts})
    for changed in (True, False):
        summary = summarise("shop", *[reused] * 4, InService(reused.name, changed), reused)
        assert summary["nothing_to_do"] is not changed and summary["promoted"]


def test_json_is_json_whatever_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    from flows.console import end

    end({"auc": float("nan"), "more": [float("inf"), 1.0, {"deep": (float("-inf"),)}], "root": Path("x")}, True)
    line = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert line == {"auc": None, "more": [None, 1.0, {"deep": [None]}], "root": "x"}


def test_names_in_service_are_those_with_a_pointer(shop: Shop) -> None:
    from modeling.evaluation.pointer import names_in_service

    assert names_in_service(shop.artifacts) == ["shop"] and names_in_service(Artifacts(shop.folder / "none")) == []
    for name, text in (("emptied", '{"model": null}'), ("damaged", "{"), ("nothing", "")):
        pointer_of(shop.artifacts, name).write_text(text)
    assert names_in_service(shop.artifacts) == ["shop"]
    with pytest.raises(InputError, match=r"Nothing is in service for 'emptied' in .* In service: shop\."):
        in_service.model_folder(shop.artifacts, "emptied")


def test_a_model_that_was_never_measured_recommends_nothing_of_the_session_again(tmp_path: Path) -> None:
    from flows.in_service import keeps_seen

    assert keeps_seen(Artifacts(tmp_path), tmp_path / "models" / "0123456789abcdef") is False


def test_pointers_are_changed_while_a_night_runs_but_by_one_at_a_time(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = models_of(shop)
    root = shop.artifacts.root
    with lock.holding(root, lock.NIGHT, "night of shop"):
        champion = in_service.rollback(shop.artifacts, "shop")
    assert champion.model == first and champion.token > 0
    elsewhere = Owner.here("rollback").model_copy(update={"host": "another-machine", "boot": "another"})
    taken = root / lock.FOLDER / lock.POINTERS / f"{champion.token + 5:012}"
    taken.write_text(elsewhere.model_dump_json())
    before = pointer_of(shop.artifacts, "shop").read_text()
    monkeypatch.setitem(lock.WAIT_SECONDS, lock.POINTERS, 0.3)
    for change in (in_service.rollback, in_service.keep):
        with pytest.raises(InputError, match="another-machine"):
            change(shop.artifacts, "shop", True) if change is in_service.keep else change(shop.artifacts, "shop")
    assert pointer_of(shop.artifacts, "shop").read_text() == before
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.1)
    assert in_service.promote(shop.artifacts, "shop", second).token == champion.token + 6


def test_a_writer_that_was_paused_leaves_the_pointer_as_it_is(shop: Shop) -> None:
    """Another took the lock between its reading and its writing."""
    first, _ = models_of(shop)
    before = pointer_of(shop.artifacts, "shop").read_text()
    folder = shop.artifacts.root / lock.FOLDER / lock.POINTERS
    with changing(shop.artifacts, "promote") as token:
        (folder / f"{token + 1:012}").write_text(Owner.here("rollback").model_dump_json())
        with pytest.raises(lock.LostLockError, match="taken over by rollback"):
            put_in_service(shop.artifacts, "shop", first, by="promote")
    assert pointer_of(shop.artifacts, "shop").read_text() == before
    assert [path.name for path in pointer_of(shop.artifacts, "shop").parent.iterdir()] == ["shop.json"]


def test_tokens_go_on_from_a_pointer_that_was_restored_without_its_locks(shop: Shop) -> None:
    path = pointer_of(shop.artifacts, "shop")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"token": 700}))
    shutil.rmtree(shop.artifacts.root / lock.FOLDER, ignore_errors=True)
    assert in_service.rollback(shop.artifacts, "shop").token == 701


@pytest.mark.parametrize(
    "name",
    [
        "",
        "models/",
        "*",
        "models/*",
        "models/[0-9a-f]",
        "?",
        "models/../sessions",
        "../x",
        "../models",
        "models/..",
        "/",
    ],
)
def test_what_is_no_name_of_a_model_is_refused(name: str, shop: Shop) -> None:
    """Also where one model alone is there, which a pattern would find."""
    before = pointer_of(shop.artifacts, "shop").read_bytes()
    (sessions, *_) = (shop.artifacts.root / "sessions").iterdir()
    for path in (shop.artifacts.root / "models").iterdir():
        if path.name != shop.model.name:
            shutil.rmtree(path)
    for given in (name, f"models/../sessions/{sessions.name}"):
        with pytest.raises(InputError, match="is no model: give one such as models/1f2e"):
            in_service.change(shop.artifacts, "shop", given, None)
    assert pointer_of(shop.artifacts, "shop").read_bytes() == before


def test_a_rollback_to_a_model_that_was_removed_says_so(shop: Shop) -> None:
    first, second = models_of(shop)
    shutil.rmtree(shop.artifacts.root / first)
    with pytest.raises(InputError, match=f"{first}, which was in service for 'shop' before {second}, has been removed"):
        in_service.rollback(shop.artifacts, "shop")
    assert models_of(shop) == [first, second]


@pytest.mark.parametrize("name", ["../elsewhere", "a/../../elsewhere", "/tmp/elsewhere"])
def test_a_dataset_never_names_a_pointer_elsewhere(shop: Shop, name: str) -> None:
    artifacts = shop.artifacts
    pointer = next((artifacts.root / "champions").glob("*.json"))
    (artifacts.root / "elsewhere.json").write_text(pointer.read_text())
    with pytest.raises(InputError, match="without folders"):
        champion_of(artifacts, name)
    with pytest.raises(InputError, match="without folders"):
        put_in_service(artifacts, name, champion_of(artifacts, pointer.stem).model, by="promote")  # type: ignore[union-attr]
