"""Trainings that once went wrong, with what is right."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import ranks
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer
from modeling.splits import Cases, Split, hide_last
from modeling.stages import training
from modeling.stages.training import TURN, train
from modeling.training.checkpoints import steps_of
from modeling.training.fit import choose_device, fit
from modeling.training.launch import together
from modeling.training.optimizer import clip_gradients
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import UNKNOWN
from schemas.dataset import Dataset
from schemas.errors import InputError
from tests.conftest import chain_sessions, random_sessions, schema_of
from tests.modeling.test_heads import SCHEMA, coin_sessions, model_with
from tests.modeling.training.test_fit import Interrupt, same_weights
from tests.slow import slow

SMALL = ModelConfig.model_validate({"body": {"dim": 32, "num_layers": 1, "dropout": 0.1}})
NONE = torch.tensor([], dtype=torch.long)
Ready = tuple[Artifacts, Manifest]  # a root, and the sessions that are prepared in it


def run(
    split: Split, folder: Path, after_step: Interrupt | None = None, **training: Any
) -> tuple[SequenceModel, dict[str, Any], list[str]]:
    lines: list[str] = []
    config = TrainingConfig.model_validate({"tokens_per_step": 256, "threads": 1, "order": "random"} | training)
    report = lambda line: lines.append(str(line))  # noqa: E731
    model, facts = fit(schema_of(50), split, SMALL, config, folder, report, after_step=after_step)
    return model, facts, lines


def split_with(validation: Cases) -> Split:
    sessions, test = chain_sessions(600, 50), chain_sessions(100, 50, seed=1)
    return Split(sessions, validation, hide_last(test), sessions)


def unknown_targets() -> Cases:
    cases = hide_last(chain_sessions(40, 50, seed=2))
    return Cases(cases.history, torch.full_like(cases.target, UNKNOWN))


@pytest.mark.parametrize(
    "validation",
    [hide_last(chain_sessions(40, 50, seed=2).select(NONE)), unknown_targets()],
    ids=["no session", "no known target"],
)
def test_without_validation_cases_training_runs_to_its_end(validation: Cases, tmp_path: Path) -> None:
    """The first weights were taken for the best, and patience stopped: recall@1 was .17."""
    split = split_with(validation)
    model, facts, lines = run(split, tmp_path, epochs=20, evaluations=20, patience=1, learning_rate=5e-3)
    assert facts["steps"] == facts["planned_steps"] == facts["best_step"]
    assert (facts["validation_cases"], facts["weights"], facts["validation_ndcg@20"]) == (0, "last step", None)
    assert len([line for line in lines if line.startswith("Warning: no validation case")]) == 1
    assert metrics_at(ranks(ModelScorer(model), split.test), (1,))["recall@1"] > 0.95


def test_labels_all_alike_in_validation_choose_nothing(tmp_path: Path) -> None:
    sessions = coin_sessions(200, 0)
    alike = replace(sessions, labels={"past": torch.zeros(200), "last": torch.zeros(200)})
    split = Split(sessions, hide_last(alike), hide_last(alike), sessions)
    training = TrainingConfig(epochs=6, tokens_per_step=128, evaluations=6, patience=1, threads=1, order="random")
    settings, lines = model_with(SCHEMA, {"past": "binary"}).settings, []
    _, facts = fit(SCHEMA, split, settings, training, tmp_path, lambda line: lines.append(str(line)))
    assert facts["steps"] == facts["planned_steps"]
    assert any("no validation case has a past/auc" in line for line in lines)


def ring(folder: Path, sessions_a_day: tuple[int, ...]) -> Dataset:
    """A shop in which item i is followed by i + 1; a file of events, and how it is read."""
    draw, rows, user = random.Random(1), [], 0
    for day, count in enumerate(sessions_a_day):
        for _ in range(count):
            user, item = user + 1, draw.randrange(30)
            begin = datetime(2026, 3, 1 + day, 8 + draw.randrange(10))
            rows += [(f"u{user}", f"i{(item + k) % 30:02}", begin + timedelta(minutes=k)) for k in range(5)]
    folder.mkdir(parents=True)
    names = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows, schema=names, orient="row").sort("timestamp").write_csv(folder / "events.csv")
    about = {
        "name": "ring",
        "events": {"path": "events.csv", "columns": {name: name for name in names}},
        "sessions": {"rule": "gap", "gap_minutes": 30},
        "features": {"item_id": {"encode": "category"}},
    }
    return Dataset.model_validate(about).at(folder)


def prepared(folder: Path, *sessions_a_day: int) -> tuple[Artifacts, Manifest]:
    artifacts = Artifacts(folder / "root")
    return artifacts, prepare(artifacts, ring(folder / "shop", sessions_a_day), progress=lambda line: None)


@pytest.fixture(scope="module")
def five_days(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return prepared(tmp_path_factory.mktemp("ring"), 60, 60, 60, 40, 2)


@pytest.fixture
def ready(five_days: Ready, tmp_path: Path) -> Ready:
    """A copy of five prepared days, and their sessions."""
    artifacts = Artifacts(tmp_path / "root")
    shutil.copytree(five_days[0].root, artifacts.root)
    return artifacts, artifacts.get(five_days[1].name)


TRAINING = TrainingConfig(epochs=2, tokens_per_step=256, threads=1)


def test_a_quiet_last_training_day_has_no_cases_and_that_is_said(tmp_path: Path) -> None:
    lines: list[str] = []
    for quiet, cases in ((9, 0), (30, 3)):
        artifacts, sessions = prepared(tmp_path / str(quiet), 60, 60, quiet, 40, 2)
        lines.clear()
        model = train(artifacts, sessions, SMALL, TRAINING, lambda line: lines.append(str(line)))
        assert model.facts["validation_cases"] == cases
        assert any(("no validation case" if not cases else "Only 3 validation cases") in line for line in lines)


@pytest.mark.parametrize("at", [0.35, 0.6, 0.9])
def test_a_resumed_run_stops_where_the_undisturbed_one_does(at: float, tmp_path: Path) -> None:
    """The patience began anew: a run that would have stopped at step 60 stopped at 84."""
    sessions = random_sessions(200, 50)
    split = Split(sessions, hide_last(sessions), hide_last(sessions), sessions)
    settings: dict[str, Any] = {"epochs": 60, "evaluations": 60, "patience": 4, "learning_rate": 0.05}
    whole, facts, _ = run(split, tmp_path / "whole", **settings)
    assert facts["best_step"] < facts["steps"] < facts["planned_steps"] / 2
    with pytest.raises(KeyboardInterrupt):
        run(split, tmp_path / "broken", Interrupt(int(facts["steps"] * at)), **settings)
    assert steps_of(tmp_path / "broken")
    resumed, again, _ = run(split, tmp_path / "broken", **settings)
    same = ("steps", "best_step", "validation_ndcg@20", "collapsed_step", "history")
    assert {name: again[name] for name in same} == {name: facts[name] for name in same}
    assert same_weights(whole, resumed)
    finished, again, _ = run(split, tmp_path / "broken", **settings)  # killed after its last checkpoint
    assert (again["steps"], again["tokens"]) == (facts["steps"], facts["tokens"])
    assert same_weights(whole, finished)


def test_a_model_that_training_destroys_is_told_while_it_runs(tmp_path: Path) -> None:
    """A rate that rises until it destroys what was learned."""
    split = split_with(hide_last(chain_sessions(200, 50, seed=2)))
    settings: dict[str, Any] = {"learning_rate": 3.0, "warmup_steps": 1.0 - 1e-9, "epochs": 24, "evaluations": 24}
    _, facts, lines = run(split, tmp_path, patience=24, **settings)
    told = [place for place, line in enumerate(lines) if "further training destroys the model" in line]
    assert len(told) == 1 and told[0] < len(lines) - 1
    curve = {row["step"]: row["validation"]["ndcg@20"] for row in facts["history"] if row["validation"]}
    fallen = facts["collapsed_step"]
    assert curve[fallen] < max(value for step, value in curve.items() if step < fallen) / 2
    assert facts["weights"] == "best validation" and facts["best_step"] < fallen


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    split = split_with(hide_last(chain_sessions(200, 50, seed=2)))
    with pytest.raises(FloatingPointError, match=r"not finite|has diverged"):
        run(split, tmp_path, learning_rate=1e30, epochs=4)


def test_gradients_of_few_rows_are_clipped_with_the_others() -> None:
    torch.manual_seed(0)
    values, ids = (torch.randn(20, 4), torch.randn(4, 3)), torch.tensor([1, 5, 5, 1, 7])
    gradients = []
    for sparse in (False, True):
        table, weight = (nn.Parameter(value.clone()) for value in values)
        (F.embedding(ids, table, sparse=sparse) @ weight).square().sum().backward()
        clip_gradients([table, weight, nn.Parameter(torch.ones(2))], 0.5)
        assert table.grad is not None and weight.grad is not None and table.grad.is_sparse is sparse
        gradients.append([table.grad.to_dense(), weight.grad])
    torch.testing.assert_close(gradients[0], gradients[1])
    norm = torch.cat([gradient.flatten() for gradient in gradients[1]]).norm()
    torch.testing.assert_close(norm, torch.tensor(0.5), rtol=1e-4, atol=0)
    before = [gradient.clone() for gradient in gradients[0]]
    small = [nn.Parameter(value) for value in values]
    for parameter, gradient in zip(small, before, strict=True):
        parameter.grad = gradient.clone()
    clip_gradients(small, 10.0)
    assert all(torch.equal(parameter.grad, gradient) for parameter, gradient in zip(small, before, strict=True))  # type: ignore[arg-type]


def test_another_number_of_threads_is_another_model(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    """They add in another order, so they have other bits; where nothing changed, last night's model is found."""
    artifacts, sessions = ready
    seen: set[int] = set()
    fit_on = lambda **more: train(  # noqa: E731
        artifacts, sessions, SMALL, TRAINING.model_copy(update=more), lambda line: seen.add(torch.get_num_threads())
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    first = fit_on(threads=None)
    assert not first.reused and first.parameters["training"]["threads"] == 2 and 2 in seen
    assert fit_on(threads=None).reused and fit_on(threads=2).reused
    other = fit_on(threads=1)
    assert other.id != first.id
    monkeypatch.setenv("OMP_NUM_THREADS", "1,2")
    assert fit_on(threads=None).id == other.id


def test_threads_follow_the_size_of_a_step(ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts, sessions = ready
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(2)))
    monkeypatch.setattr("modeling.stages.training.CORES", tmp_path)
    before, found = torch.get_num_threads(), {}
    try:
        for tokens, given in ((256, None), (1_024, None), (256, 2)):
            lines: list[str] = []
            config = TRAINING.model_copy(update={"tokens_per_step": tokens, "threads": given})
            model = train(artifacts, sessions, SMALL, config, lambda line, lines=lines: lines.append(str(line)))
            said = next(line for line in lines if line.startswith("Training "))
            found[tokens, given] = model.parameters["training"]["threads"], said.rpartition(", on ")[2]
    finally:
        torch.set_num_threads(before)
    assert found == {
        (256, None): (1, "1 CPU thread."),
        (1_024, None): (2, "2 CPU threads."),
        (256, 2): (2, "2 CPU threads."),
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"trainer": "hugging_face"}, r"training\.trainer hugging_face: 2 processes"),
        ({"devices": 3}, r"torchrun started 2 processes .*--devices\) is 3"),
        ({}, "RANK, MASTER_ADDR, MASTER_PORT is not set: start them with torchrun"),
    ],
)
def test_processes_that_cannot_train_together_are_refused(
    settings: dict[str, Any], words: str, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They did the same steps, and locked each other out."""
    artifacts, sessions = ready
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=words):
        train(artifacts, sessions, SMALL, TRAINING.model_copy(update=settings), lambda line: None)
    assert not (artifacts.root / "models").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    alone = TRAINING.model_copy(update=settings | {"devices": 1})
    assert train(artifacts, sessions, SMALL, alone, lambda line: None).facts["steps"]


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(InputError, match=r"--devices\) is 2, but this machine shows 1 GPU \(CUDA_VISIBLE_DEVICES=3\)"):
        together(print, 2, print)


@slow  # tests/flows/test_together.py trains such a model by torchrun
def test_a_model_of_two_processes_is_another_model(ready: Ready) -> None:
    artifacts, sessions = ready
    lines: list[str] = []
    both = TRAINING.model_copy(update={"devices": 2, "shard_items": True})
    say = lambda line: lines.append(str(line))  # noqa: E731
    model = train(artifacts, sessions, SMALL, both, say)
    assert not model.reused
    assert model.parameters["training"]["devices"] == 2
    assert model.facts["steps"] == model.facts["planned_steps"]
    read = SequenceModel.load(model.folder)
    assert len(read.inputs.items.table_VE) == read.schema.items.cardinality, "one ordinary model"
    assert len([line for line in lines if line.startswith("Training sasrec")]) == 1
    assert train(artifacts, sessions, SMALL, both, say).reused
    assert train(artifacts, sessions, SMALL, TRAINING, say).id != model.id


@pytest.mark.fault(
    "a model is trained by hand while a night trains the very same one",
    outcome="the second waits, with one line, and takes the model; where the first is killed, it goes on from its checkpoint",
)
@pytest.mark.parametrize("ends", ["with the model", "killed"])
def test_a_second_process_on_the_same_model_waits_for_it(ends: str, ready: Ready, tmp_path: Path) -> None:
    artifacts, sessions = ready
    lines: list[str] = []
    made = train(artifacts, sessions, SMALL, TRAINING, lambda line: None)
    aside = made.folder.rename(tmp_path / "aside")
    ready, go_on = os.pipe(), os.pipe()
    if not (child := os.fork()):  # another process, with the lock that one has which trains
        with artifacts.unfinished(f"{TURN}{made.id}"):
            os.write(ready[1], b"x")
            os.read(go_on[0], 1)
            if ends == "with the model":
                aside.rename(made.folder)
            os._exit(0)  # as SIGKILL leaves it: no end of the block
    os.read(ready[0], 1)

    def say(line: object) -> None:
        lines.append(str(line))
        if "waits for" in str(line):
            os.write(go_on[1], b"x")

    again = train(artifacts, sessions, SMALL, TRAINING, say)
    os.waitpid(child, 0)
    assert again.id == made.id and again.reused == (ends == "with the model")
    assert sum("Another process is training" in line for line in lines) == 1
    assert any(line.startswith("Training ") for line in lines) == (ends == "killed")
    assert not list((artifacts.root / "unfinished").iterdir()) or ends == "with the model"


def test_two_that_begin_at_the_same_moment_do_not_both_train(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    """From when one goes to train another waits, also before the first one has loaded torch and opened its checkpoints."""
    artifacts, sessions = ready
    fit_alone, codes = training._fit, list[int]()

    def fit_after_another_began(job: training.Job, progress: Any) -> Manifest:
        if not (child := os.fork()):
            say = lambda line: "waits for" in str(line) and os._exit(7)  # noqa: E731
            monkeypatch.setattr(training, "_fit", lambda *_: os._exit(1))
            train(artifacts, sessions, SMALL, TRAINING, say)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return fit_alone(job, progress)

    monkeypatch.setattr(training, "_fit", fit_after_another_began)
    assert not train(artifacts, sessions, SMALL, TRAINING, lambda line: None).reused
    assert codes == [7]


def test_of_several_gpus_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers.Trainer split batches over all of them."""
    lines: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    for count in (1, 4):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert choose_device(lines.append) == "cuda"
    assert lines == ["Of 4 GPUs, number 2 is used: one process trains on one."]


@pytest.mark.parametrize("trainer", ["own", "hugging_face"])
def test_a_rate_that_diverges_is_a_mistake_that_can_be_mended(trainer: str, tmp_path: Path) -> None:
    """`overnight train` ended with thirty lines of its internals."""
    split = split_with(hide_last(chain_sessions(200, 50, seed=2)))
    with pytest.raises(InputError, match=r"diverged.*training\.learning_rate \(it is 1e\+30\)"):
        run(split, tmp_path, learning_rate=1e30, epochs=4, trainer=trainer)


def test_weights_that_the_last_step_destroyed_are_no_model(tmp_path: Path) -> None:
    """Its loss was taken before the step: without validation, a model of NaN was saved."""
    with pytest.raises(InputError, match=r"weights are not finite .*diverged"):
        run(split_with(unknown_targets()), tmp_path, learning_rate=1e38, epochs=1, tokens_per_step=100_000)


@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax"])
def test_sessions_of_unknown_items_alone_are_nothing_to_learn_from(loss: str, tmp_path: Path) -> None:
    """A sampled loss had no item to draw from and failed in `randint`."""
    sessions = chain_sessions(40, 50)
    unknown = replace(sessions, events=sessions.events | {"item_id": torch.full_like(sessions.items, UNKNOWN)})
    split = Split(unknown, hide_last(sessions), hide_last(sessions), unknown)
    settings = ModelConfig.model_validate({"body": {"dim": 16}, "loss": loss})
    with pytest.raises(InputError, match="no item to learn"):
        fit(schema_of(50), split, settings, TRAINING, tmp_path, lambda line: None)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "random.safetensors", "random.json", "state.json", "chosen"]
)
@pytest.mark.fault("a checkpoint is damaged", outcome="training goes on from the one before, or anew: the same model")
def test_of_a_damaged_checkpoint_nothing_is_taken(name: str, tmp_path: Path) -> None:
    """The optimizer of one whose random state was lost stayed; one whose chosen weights were lost failed at the end."""
    sessions = random_sessions(200, 50)
    split = Split(sessions, hide_last(sessions), hide_last(sessions), sessions)
    settings: dict[str, Any] = {"epochs": 10, "evaluations": 10, "patience": 1, "learning_rate": 0.05}
    whole, facts, _ = run(split, tmp_path, **settings)  # and killed after its last checkpoint
    chosen, newest = sorted(steps_of(tmp_path))
    assert chosen == facts["best_step"]
    shutil.rmtree(tmp_path / f"checkpoint-{chosen}")
    if name != "chosen":
        path = tmp_path / f"checkpoint-{newest}" / name
        path.write_bytes(b"\xff" + path.read_bytes()[: path.stat().st_size // 2])
    resumed, again, lines = run(split, tmp_path, **settings)
    assert not any("Going on" in line for line in lines)
    assert again["history"] == facts["history"] and again["best_step"] == facts["best_step"]
    assert same_weights(whole, resumed)
