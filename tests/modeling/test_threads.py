"""How many threads train where none are set, and that they are of the training alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from modeling.config import ModelConfig, TrainingConfig
from modeling.stages import train
from modeling.stages.training import cpu_threads
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts
from tests.cases.test_evaluation import quiet, ring, shop


@pytest.mark.parametrize("asked", ["", "0", "many", None])
def test_without_a_number_of_threads_all_cores_are_taken(asked: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert 1 <= cpu_threads() <= (os.cpu_count() or 1)
    assert cpu_threads() == cpu_threads()


@pytest.mark.parametrize(("events", "threads"), [(64, 1), (512, 1), (1_023, 1), (1_024, 2), (4_096, 4), (65_536, 4)])
def test_a_small_step_takes_fewer_threads_than_there_are_cores(
    events: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    monkeypatch.setattr("modeling.stages.training.CORES", tmp_path)
    assert cpu_threads(events=events) == threads and cpu_threads() == 4
    assert cpu_threads(2, events) == min(threads, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads(events=events) == 3


def test_threads_of_a_training_are_its_own(tmp_path: Path) -> None:
    sessions = prepare(Artifacts(tmp_path / "root"), shop(tmp_path, ring(2)), progress=quiet)
    counts: list[int] = []
    training = TrainingConfig(epochs=1, tokens_per_step=64, threads=1)
    model = ModelConfig.model_validate({"body": {"dim": 8, "num_layers": 1}, "inputs": {"item_start": "random"}})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(Artifacts(sessions.root), sessions, model, training, lambda line: counts.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 2 and 1 in counts
    finally:
        torch.set_num_threads(before)
