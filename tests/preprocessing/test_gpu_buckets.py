"""Buckets of the engine `gpu`, whose plans are sent to the CPU here: how large they are, and several in hand at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.engines import polars as engine
from preprocessing.execution import tasks
from preprocessing.execution.run import Workers
from preprocessing.frames import CPU
from tests.preprocessing.small import content, dataset_of, run, three_days, write

GIGABYTE = 10**9


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of 80 GB whose plans run here."""
    monkeypatch.setattr(engine, "_free_bytes", lambda: 80 * GIGABYTE)
    monkeypatch.setattr(engine, "_gpu", lambda: CPU)


def test_a_bucket_is_as_large_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    of_gpu = engine.PolarsEngine(gpu=True)
    assert 20_000_000 < of_gpu.bucket_rows(100) == 80 * GIGABYTE // (100 * engine.COPIES) < engine.GPU_ROWS
    assert of_gpu.bucket_rows(1) == engine.GPU_ROWS, "lists must stay below 2^31 values"
    monkeypatch.setattr(engine, "_free_bytes", lambda: 10**6)
    assert of_gpu.bucket_rows(100) == engine.CPU_ROWS == engine.PolarsEngine().bucket_rows(100)


def test_memory_of_a_device_is_not_taken_before_a_plan_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken() -> pl.GPUEngine:
        raise AssertionError("taken")

    monkeypatch.setattr(engine, "_gpu", taken)
    of_gpu = engine.PolarsEngine(gpu=True)
    of_gpu.bucket_rows(100)
    with pytest.raises(AssertionError, match="taken"):
        of_gpu.target  # noqa: B018


def test_tasks_of_several_buckets_are_in_hand_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [(f"{user}{name}", item, time) for user in range(5) for name, item, time in three_days()]
    write(tmp_path, users)
    dataset = dataset_of(tmp_path)
    whole = content(run(tmp_path, dataset))
    (tmp_path / "artifacts").rename(tmp_path / "first")
    both = threading.Barrier(2, timeout=600)
    cleaned = tasks.clean_bucket

    def wait_for_another(job: Any, bucket: int) -> None:
        if bucket < 2:
            both.wait()
        cleaned(job, bucket)

    monkeypatch.setattr(tasks, "clean_bucket", wait_for_another)
    assert content(run(tmp_path, dataset, engine="gpu", workers=Workers(min_buckets=3))) == whole
