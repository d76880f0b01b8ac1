"""Real processes that train one model together on a CPU: the curve of one process, and the same bits when they are resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.multiprocessing.spawn import ProcessException

from modeling.config import ModelConfig, TrainingConfig
from modeling.splits import Split, hide_last
from modeling.training import checkpoints, distributed, launch, optimizer
from modeling.training.checkpoints import State
from modeling.training.fit import fit
from modeling.training.plan import Plan
from schemas import lock
from schemas.artifacts import Artifacts
from schemas.errors import DivergedError, InputError
from schemas.owner import Owner
from tests.conftest import model_of, random_sessions, schema_of
from tests.modeling.test_heads import NUM_ITEMS, coin_sessions, schema_with
from tests.slow import pared

Report = Callable[[Any], object]
CONFIG = TrainingConfig(epochs=3, tokens_per_step=128, evaluations=3, patience=10, threads=1, order="random")
GROUPS = {"source": "in_batch", "mixed": 0.5, "count": 9, "group": 7}
SHARDED = pared((False, True), bool)  # a divided table; what is not divided is shared there, too
LATE = 15  # a step after the first checkpoint, before the last
TABLE = "inputs.items.table_VE"
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # settings of the model and of training
    "full softmax": ({"heads": {"next_item": {"bias": True}}}, {"max_grad_norm": 0.5}),
    "sampled softmax, rows": ({"loss": {"name": "sampled_softmax", "negatives": GROUPS}}, {"max_grad_norm": 0.5}),
    "masked, labels": ({"objective": "masked", "heads": {"next_item": {}, "last": "binary"}}, {"order": "time"}),
    "divided table": ({"heads": {"next_item": {"bias": True}}}, {"max_grad_norm": 0.5, "shard_items": True}),
    "divided table, sampled": ({"loss": {"name": "sampled_softmax", "negatives": GROUPS}}, {"shard_items": True}),
    "divided table, cosine, masked, labels, rows": (
        {
            "objective": "masked",
            "loss": "sampled_softmax",
            "heads": {"next_item": {"cosine": True, "temperature": 0.2, "bias": True}, "last": "binary"},
        },
        {"shard_items": True, "max_grad_norm": 0.5},
    ),
    "one session a row": ({"body": {"name": "gru4rec"}, "loss": "bpr_max"}, {"tokens_per_step": 16, "epochs": 1}),
}


def fit_run(name: str, folder: Path, report: Report) -> None:
    """Train as RUNS say, without dropout; the first process writes history and weights."""
    model_changes, changes = RUNS[name]
    body = {"dim": 16, "dropout": 0.0, "name": "bert4rec" if "masked" in name else "sasrec"} | model_changes.get(
        "body", {}
    )
    settings = ModelConfig.model_validate(model_changes | {"body": body})
    optimizer.SPARSE_FROM["cpu"] = 1 if "rows" in name else 50_000
    sessions, test = coin_sessions(100, 0), hide_last(coin_sessions(37, 1))
    split = Split(sessions, test, test, sessions)
    if distributed.num_processes() == 1:
        changes = changes | {"shard_items": False}
    config = CONFIG.model_copy(update=changes)
    model, facts = fit(schema_with(("last",)), split, settings, config, folder / name, report)
    assert model.inputs.items.sparse == ("rows" in name)
    if distributed.is_first():
        (folder / f"{name}.json").write_text(json.dumps(facts["history"]))
        checkpoints.write_tensors(model.state_dict(), folder / f"{name}.safetensors")


def fit_all(folder: Path, report: Report) -> None:
    for name in RUNS:
        fit_run(name, folder, report)
    if distributed.num_processes() > 1:
        refuse_other_weights()
        count_what_both_used()


def count_what_both_used() -> None:
    state = State(cpu_seconds=100.0, wall_seconds=50.0)
    state.start_clock()
    state._clock = (state._clock[0] - 1, state._clock[1] - 10 * (1 + distributed.rank()))
    state.count_costs()
    assert 130 <= state.cpu_seconds < 140 and state.wall_seconds >= 51, state


def refuse_other_weights() -> None:
    model = model_of("sasrec", num_items=NUM_ITEMS)
    distributed.Together(model, Plan([1], CONFIG))
    with torch.no_grad():
        model.inputs.items.table_VE[3] += 1e-6 * distributed.rank()
    with pytest.raises(RuntimeError, match="do not have the same weights"):
        distributed.Together(model, Plan([1], CONFIG))


def test_two_processes_have_the_curve_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(optimizer.SPARSE_FROM, "cpu", 50_000)
    lines: list[str] = []
    alone, both = tmp_path / "alone", tmp_path / "both"
    for folder in (alone, both):
        folder.mkdir()
    fit_all(alone, lambda line: None)
    launch.together(partial(fit_all, both), 2, lambda line: lines.append(str(line)))
    for name in RUNS:
        one, two = (json.loads((folder / f"{name}.json").read_text()) for folder in (alone, both))
        assert len(one) == len(two) > 3
        for row, other in zip(one, two, strict=True):
            assert row["loss"] == pytest.approx(other["loss"], abs=1e-5), name
            assert row["validation"] == pytest.approx(other["validation"], abs=0.02), name
        tables = [safetensors.torch.load_file(folder / f"{name}.safetensors")[TABLE] for folder in (alone, both)]
        torch.testing.assert_close(*tables, atol=1e-4, rtol=1e-3, msg=name)
    assert sum(line.startswith("Training ") for line in lines) == len(RUNS), "one process speaks"


def fit_with_dropout(folder: Path, shard_items: bool, dies_at: int, report: Report) -> None:
    """The second process is killed after a step."""

    def after_step(state: State) -> None:
        if state.step == dies_at and not distributed.is_first():
            os._exit(9)

    sessions = random_sessions(100, NUM_ITEMS)
    test = hide_last(sessions)
    settings = ModelConfig.model_validate({"body": {"dim": 16, "dropout": 0.3}, "loss": "sampled_softmax"})
    config = CONFIG.model_copy(update={"shard_items": shard_items})
    model, facts = fit(
        schema_of(NUM_ITEMS),
        Split(sessions, test, test, sessions),
        settings,
        config,
        folder,
        report,
        after_step=after_step,
    )
    if distributed.is_first():
        (folder / "facts.json").write_text(json.dumps({"steps": facts["steps"], "history": facts["history"]}))
        checkpoints.write_tensors(model.state_dict(), folder / "end.safetensors")


def fit_then_die(folder: Path, report: Report) -> None:
    """Both kinds of table as a whole, then the first of the two until it is killed."""
    for shard_items in SHARDED:
        fit_with_dropout(folder / f"whole-{shard_items}", shard_items, 0, report)
    fit_with_dropout(folder / f"broken-{SHARDED[0]}", SHARDED[0], LATE, report)


def go_on(folder: Path, number: int, report: Report) -> None:
    """What was killed to its end; then the next kind until it is killed, or a mistake of the second process."""
    fit_with_dropout(folder / f"broken-{SHARDED[number]}", SHARDED[number], 0, report)
    if number + 1 < len(SHARDED):
        fit_with_dropout(folder / f"broken-{SHARDED[number + 1]}", SHARDED[number + 1], LATE, report)
    if not distributed.is_first():
        raise DivergedError("the second process says so")
    distributed.wait()


@pytest.mark.fault("several processes that train together are killed", outcome="goes on")
def test_killed_processes_go_on_to_the_same_bits_and_what_one_finds_wrong_ends_all(tmp_path: Path) -> None:
    """As few starts of two processes as can be, each of which imports torch."""
    with pytest.raises(ProcessException):
        launch.together(partial(fit_then_die, tmp_path), 2, lambda line: None)
    for number, shard_items in enumerate(SHARDED):
        whole, broken = (tmp_path / f"{name}-{shard_items}" for name in ("whole", "broken"))
        assert not (broken / "facts.json").exists()
        assert checkpoints.steps_of(broken)
        lines: list[str] = []
        with pytest.raises((InputError, ProcessException)) as ended:
            launch.together(partial(go_on, tmp_path, number), 2, lambda line, lines=lines: lines.append(str(line)))
        assert any("Going on from step" in line for line in lines)
        assert (broken / "facts.json").read_text() == (whole / "facts.json").read_text()
        ends = [safetensors.torch.load_file(folder / "end.safetensors") for folder in (whole, broken)]
        assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert "the second process says so" in str(ended.value)


def write_after_another_took_over(root: Path, report: Report) -> None:
    if distributed.is_first():
        folder = root / lock.FOLDER / lock.NIGHT
        newest = max(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        (folder / f"{newest + 1:012}").write_text(Owner.here("another night").model_dump_json())
        with Artifacts(root).write("models", "0" * 16):
            pass


def test_processes_that_train_together_write_only_under_the_lock_of_their_parent(tmp_path: Path) -> None:
    with (
        pytest.raises((ProcessException, lock.LostLockError)),
        lock.holding(tmp_path, lock.NIGHT, "night of shop", lambda line: None),
    ):
        launch.together(partial(write_after_another_took_over, tmp_path), 2, lambda line: None)
    assert not list(tmp_path.glob("models/*"))
