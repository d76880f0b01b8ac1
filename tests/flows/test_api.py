"""`overnight api` as people start it: a process that finds the model by its pointer, and ends in peace."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import polars as pl
import pytest

from flows.api_sources import finder
from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.pointer import put_in_service
from modeling.service.api.keys import new_key
from modeling.stages import train
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, write_atomically
from schemas.dataset import read_dataset
from schemas.errors import InputError
from tests.flows.conftest import clean_environment, overnight_here


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop, two models of it, the first in service, and lists for a user."""
    folder = tmp_path_factory.mktemp("api")
    simulate(Shop(days=4, users=60, seed=2), folder / "shop")
    artifacts = Artifacts(folder / "root")
    sessions = prepare(artifacts, read_dataset("demo").at(folder / "shop"), progress=lambda report: None)
    config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}})
    for seed in (1, 0):
        training = TrainingConfig(epochs=1, tokens_per_step=256, threads=1, seed=seed)
        put_in_service(
            artifacts, "demo", train(artifacts, sessions, config, training, lambda line: None).name, by="promote"
        )
    lists = artifacts.root / "recommendations/0123456789abcdef"
    lists.mkdir(parents=True)
    item = pl.read_parquet(sessions.folder / "items.parquet")["value"].drop_nulls()[0]
    pl.DataFrame({"user_id": ["ann"], "rank": [1], "item": [item], "score": [0.5]}).write_parquet(
        lists / "lists.parquet"
    )
    write_atomically(artifacts.root / "lists/demo.json", json.dumps({"lists": "recommendations/0123456789abcdef"}))
    return artifacts.root


def test_the_command_serves_what_the_pointer_names(root: Path, tmp_path: Path) -> None:
    key, line = new_key("shop")
    (tmp_path / "keys").write_text(line)
    command = [sys.executable, "-m", "flows.cli", "api", "--root", str(root), "--source", str(root.parent / "shop")]
    command += ["--port", "0", "--poll", "0.1", "--keys", str(tmp_path / "keys"), "--json", "--limit", "items=50"]
    environment = clean_environment()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            said = next(json.loads(line) for line in process.stdout if line.startswith("{"))
            now, before = (
                finder("demo", root, None)().name,
                json.loads((root / "champions/demo.json").read_text())["previous"],
            )
            assert said["model"] == now
            with httpx.Client(base_url=said["address"], headers={"X-API-Key": key}, timeout=600) as client:
                assert client.post("/recommend", json={"items": [], "k": 51}).status_code == 422
                assert client.get("/users/ann").json()["known"]
                assert client.get("/users/ben").json()["items"][0]["source"] in ("hour", "recent")
                done = overnight_here("rollback", "--root", root)
                assert done.returncode == 0, done.stderr
                while client.get("/health").json()["model"] != before:
                    assert process.poll() is None
                assert client.post("/recommend", json={"items": []}).headers["x-overnight-model"] == before
            assert httpx.get(f"{said['address']}/metrics", timeout=600).status_code == 401
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGTERM) and "Traceback" not in errors
    assert f"model {before} answers, in place of {now}" in errors


def test_mistakes_are_said_in_a_line(root: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (("--root", tmp_path), "Nothing is in service for 'demo'"),
        (("--root", root, "--host", "0.0.0.0"), "there is no key"),
        (("--root", root, "--keys", tmp_path / "none"), "cannot be read"),
        (("--root", root, "--limit", "speed=1"), "Unknown key 'speed'"),
        (("--root", root, "--limit", "rate=fast"), "no number"),
        (("--root", root, "--lists", tmp_path), "cannot be read"),
        (("--root", root, "--host", "203.0.113.9", "--without-keys", "--port", "1"), "cannot listen there"),
        (("--new-key", "a b"), "letters, digits"),
    ):
        done = overnight_here("api", *arguments)
        assert done.returncode == 2 and said in done.stderr, (arguments, done.stderr)
    made = overnight_here("api", "--new-key", "shop", "--json")
    summary = json.loads(made.stdout.splitlines()[-1])
    assert summary["key"] not in summary["line"] and summary["line"].startswith("shop:")


def test_a_pointer_of_lists_that_leads_elsewhere_is_refused(root: Path) -> None:
    from flows.api_sources import lists_finder

    pointer = root / "lists/demo.json"
    kept = pointer.read_text()
    try:
        for text in ('{"lists": "../../etc"}', "{}", "no JSON", "[]"):
            pointer.write_text(text)
            with pytest.raises(InputError, match="lists"):
                lists_finder("demo", root, None)()
    finally:
        pointer.write_text(kept)
    assert lists_finder("demo", root, None)() == root / "recommendations/0123456789abcdef"
