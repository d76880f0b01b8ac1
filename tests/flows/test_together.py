"""One command in several processes: torchrun's, and those that it starts itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.together import num_started
from schemas.errors import InputError
from tests.flows.conftest import LONG_SECONDS, QUICK, overnight_here, summary_of


def test_torchrun_trains_one_model(shop: Path, tmp_path: Path) -> None:
    """On a free port. The first process prepares and speaks; `--devices` finds the model, whose id says so many processes."""
    options = ["--source", str(shop), "--root", str(tmp_path), "--json", *QUICK]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "flows.cli", "train", *options],
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    summaries = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(summaries) == 1
    again = overnight_here("train", *options, "--devices", "2")
    assert summary_of(again)["artifact"] == json.loads(summaries[0])["artifact"]
    assert "nothing to train" in again.stdout
    assert len(list((tmp_path / "models").iterdir())) == 1


def test_what_only_one_process_can_do_is_refused(shop: Path, tmp_path: Path) -> None:
    done = overnight_here("retrain", "--source", shop, "--root", tmp_path, WORLD_SIZE="2", RANK="0")
    assert done.returncode == 2
    assert "2 processes were started together" in done.stderr
    assert "Start `overnight retrain` once; with --devices 2" in done.stderr


@pytest.mark.parametrize("given", ["abc", "0", "-3", "2.5"])
def test_a_world_size_that_is_no_number_of_processes_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", given)
    with pytest.raises(InputError, match=r"WORLD_SIZE=.* is no number of processes"):
        num_started()
