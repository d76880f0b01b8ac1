"""Memory of frames is kept: set where nobody has, before Polars is imported, and for workers."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import polars as pl
import pytest

from preprocessing.execution.memory import SETTING, keep_memory
from preprocessing.execution.processes import Processes


def test_what_somebody_has_set_stays() -> None:
    environment = {SETTING: "narenas:7"}
    keep_memory(environment)
    assert environment == {SETTING: "narenas:7"}


def test_few_threads_share_one_store() -> None:
    few: dict[str, str] = {}
    many: dict[str, str] = {}
    keep_memory(few, threads=2)
    keep_memory(many, threads=64)
    assert few[SETTING] == f"{many[SETTING]},narenas:1"


def test_the_command_sets_it_before_polars_is_imported() -> None:
    program = (
        "import sys, os, tempfile; from pathlib import Path; from flows.environment import prepare_environment;"
        f"prepare_environment(Path(tempfile.mkdtemp())); print('polars' in sys.modules, {SETTING!r} in os.environ)"
    )
    environment = {name: value for name, value in os.environ.items() if name != SETTING}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "True"]


def test_the_allocator_of_polars_knows_the_settings() -> None:
    """It says what it does not know, on stderr, when it begins."""
    environment: dict[str, str] = {}
    keep_memory(environment, threads=1)
    program = "import polars as pl; print(pl.Series(range(9)).sum())"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    assert (done.stdout.strip(), done.stderr) == ("36", "")


def test_workers_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    with Processes(1) as processes:
        assert "narenas:1" in str(processes.submit(os.getenv, SETTING).result())


def page_faults(rows: int) -> int:
    """Those of making a column of numbers ten times, each freed before the next."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        pl.int_range(rows, eager=True) * 2
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="counts the page faults of Linux")
@pytest.mark.parametrize("set_already", ["", "oversize_threshold:0,dirty_decay_ms:10000,narenas:1"])
def test_a_worker_keeps_the_memory_of_frames(set_already: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is forked has no thread that returns memory late: without a setting of its own, it would at once."""
    monkeypatch.delenv(SETTING, raising=False)
    if set_already:
        monkeypatch.setenv(SETTING, set_already)
    rows = 2_000_000
    pages_of_a_column = rows * 8 // os.sysconf("SC_PAGE_SIZE")
    with Processes(1) as processes:
        processes.submit(page_faults, rows).result()
        assert processes.submit(page_faults, rows).result() < pages_of_a_column
