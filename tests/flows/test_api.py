"""`overnight api` as people start it: a process that finds the model by its pointer, and ends in peace."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from flows import stages
from flows.api_sources import finder, second_of
from flows.night import Stages, run_stages
from flows.options import settings_of
from flows.pages import pages_of
from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.pointer import champion_of, put_in_service
from modeling.service.api.keys import new_key
from modeling.service.tracking.parts import EVENTS
from modeling.service.tracking.split import Split
from modeling.service.tracking.store import SECOND, tracked_folder
from modeling.service.tracking.table import read_kind
from modeling.stages import train
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, write_atomically
from schemas.dataset import SHIPPED, read_dataset
from schemas.errors import InputError
from tests.faults.test_files import patterns
from tests.flows.conftest import LONG_SECONDS, clean_environment, overnight_here, summary_of


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


SIDE_BY_SIDE = "serving: {tracking: {}, side_by_side: {model: previous, share: 0.5, salt: march}}\n"
OF_CLICKS = """
name: clicks
source: %s
events:
  path: clicks
  columns: {user_id: user_id, item_id: item_id, timestamp: timestamp}
features:
  item_id: {encode: category}
"""


@contextlib.contextmanager
def service(root: Path, dataset: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """`overnight api`, and a client of it."""
    command = [sys.executable, "-m", "flows.cli", "api", "--root", root, "--dataset", dataset, "--port", "0", "--json"]
    command += ["--source", root.parent / "shop", "--poll", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment()) as process:
        try:
            assert process.stdout is not None
            said = next(json.loads(line) for line in process.stdout if line.startswith("{"))
            with httpx.Client(base_url=said["address"], timeout=LONG_SECONDS) as client:
                yield client, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def track_until_killed(
    client: httpx.Client, name: str, sent: list[str], kept: list[str], enough: threading.Event
) -> None:
    """Send clicks, two a request, until nobody answers; what was sent, and what was answered with 200."""
    number = 0
    while True:
        items = [f"{name}-{number}", f"{name}-{number}b"]
        sent += items
        try:
            answer = client.post("/track", json={"events": [{"event": "click", "item": item} for item in items]})
        except httpx.HTTPError:
            return
        assert answer.status_code == 200 and answer.json() == {"accepted": 2, "errors": []}
        kept += items
        number += 1
        if number == 15:
            enough.set()


def test_what_was_acknowledged_survives_a_kill_and_is_read_by_the_next_night(root: Path, tmp_path: Path) -> None:
    dataset, folder = tmp_path / "demo.yaml", root / "tracked/demo"
    dataset.write_text((SHIPPED / "demo.yaml").read_text() + SIDE_BY_SIDE)
    with pytest.raises(InputError, match="POST /track"):
        overnight_says(overnight_here("shown", "--dataset", dataset, "--root", root))
    before = finder("demo", root, None)().name
    now_model = next(f"models/{path.name}" for path in (root / "models").iterdir() if path.name not in before)
    put_in_service(Artifacts(root), "demo", now_model, by="promote")
    sent: list[str] = []
    kept: list[str] = []
    with service(root, dataset) as (first, one), service(root, dataset) as (second, two):
        asked = {"sessions": [{"items": [], "user_id": f"u{n}"} for n in range(40)], "k": 4}
        answers = first.post("/recommend", json=asked).json()["sessions"]
        flags = [threading.Event() for _ in range(4)]
        clients = [first, second] * 2
        threads = [
            threading.Thread(target=track_until_killed, args=(clients[n], f"t{n}", sent, kept, flags[n]))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for flag in flags:
            assert flag.wait(LONG_SECONDS)
        for process in (one, two):
            process.kill()
        for thread in threads:
            thread.join()
    live = read_kind(folder, EVENTS)
    assert not (folder / "clicks").exists() and set(kept) <= set(live["item_id"]) <= set(sent)
    with service(root, dataset) as (client, _):
        assert not list((folder / "journals").iterdir()), "what the killed ones left was taken up at the start"
        found = sorted(read_kind(folder, EVENTS)["item_id"])
        assert found == sorted(live["item_id"]) and len(set(found)) == len(found)
        events = [{"event": "impression", "recommendation_id": answer["recommendation_id"]} for answer in answers]
        name, item = answers[0]["recommendation_id"], answers[0]["items"][0]["item"]
        events += [{"event": "click", "recommendation_id": name, "item": item}]
        tracked = client.post("/track", json={"events": events})
        assert tracked.json()["accepted"] == 41, "of answers of a process that was killed"
        now = overnight_here("shown", "--dataset", dataset, "--root", root, "--json")
        for part in visits():
            assert client.post("/track", json={"events": part}).json()["errors"] == []
    said = summary_of(now)
    assert (said["all"]["shown"], said["all"]["clicked"], said["unplaced"]) == (160, 1, len(found))
    arms = [Split(0.5, "march").arm(f"u{number}") for number in range(40)]
    assert [answer["model"] for answer in answers] == [now_model if arm == "a" else before for arm in arms]
    assert [rate["group"] for rate in said["by"]["model"]] == sorted([now_model, before])
    (pair,) = said["side_by_side"]
    assert (
        pair["models"] == [now_model, before]
        and "too little to compare yet" in pair["says"]
        and pair["salt"] == "march"
    )
    assert "By place in the list" in now.stdout
    with pages_of(root) as address:
        page = httpx.get(f"{address}/quality/demo/quality.html", timeout=LONG_SECONDS)
        assert page.status_code == 200 and "too little to compare yet" in page.text
    night(root, tmp_path, dataset)


def overnight_says(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    raise InputError(done.stderr)


def visits() -> Iterator[list[dict[str, Any]]]:
    """Clicks of 50 users on four days, a request a day."""
    for day in range(4):
        at = datetime.now(UTC).replace(hour=1, minute=0) - timedelta(days=4 - day)
        yield [
            {
                "event": "click",
                "item": f"lamp-{(user + place) % 7}",
                "user_id": f"u{user}",
                "timestamp": (at + timedelta(minutes=place)).isoformat(),
            }
            for user in range(50)
            for place in range(4)
        ]


def night(root: Path, tmp_path: Path, dataset: Path) -> None:
    """A night whose source is what was clicked; and the page that a night of the dataset in service makes."""
    (tmp_path / "clicks.yaml").write_text(OF_CLICKS % (root / "tracked/demo"))
    changes = ["training.epochs=1", "training.threads=1", "promotion.min_gain=-0.9", "body.dim=16", "body.num_layers=1"]
    settings = settings_of(dataset=str(tmp_path / "clicks.yaml"), root=root, set_=changes)
    plain = Stages(**{field.name: getattr(stages, field.name) for field in fields(Stages)})
    summary = run_stages(settings, plain)
    sessions = pl.read_parquet(Path(summary["artifacts"]["sessions"]) / "sessions" / "*" / "*.parquet")
    assert sessions.height == 200 and sessions["user_id"].n_unique() == 50
    assert "shown" not in summary and summary["in_service"] != "none"
    page = root / "quality/demo/quality.html"
    page.unlink()
    line = stages.shown(settings_of(dataset=str(dataset), source=str(root.parent / "shop"), root=root))
    assert page.exists() and line.startswith("What was shown in 28 days: 1 clicks on 160 items, 0.62%.")
    tracked_files_are_verified(root, dataset)


def tracked_files_are_verified(root: Path, dataset: Path) -> None:
    found = [path for name in ("tracked", "quality") for path in (root / name).rglob("*") if path.is_file()]
    files = [path.relative_to(root).as_posix() for path in found]
    assert len(files) > 5 and all(any(row.fullmatch(file) for row in patterns()) for file in files)
    whole = overnight_here("verify", "--root", root).stdout
    assert "tracked" not in whole and "quality" not in whole, "no artifacts, and no fault"
    part = next((root / "tracked/demo/clicks").rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:40])
    found = overnight_here("verify", "--root", root)
    assert found.returncode == 1 and str(part.relative_to(root)) in found.stdout
    wrong = overnight_here("shown", "--dataset", dataset, "--root", root)
    assert wrong.returncode == 2 and part.name in wrong.stderr and "Move it away" in wrong.stderr
    settings = settings_of(dataset=str(dataset), source=str(root.parent / "shop"), root=root)
    assert part.name in stages.shown(settings), "no reason for a night to fail"


def test_a_second_model_of_another_dataset_answers_nobody(root: Path, tmp_path: Path) -> None:
    champion = champion_of(Artifacts(root), "demo")
    assert champion is not None
    for name, wrong in (("demo", False), ("corner-shop", True)):
        dataset = tmp_path / f"{name}.yaml"
        side_by_side = f"serving: {{tracking: {{}}, side_by_side: {{model: {champion.model}}}}}\n"
        dataset.write_text((SHIPPED / "demo.yaml").read_text().replace("name: demo", f"name: {name}") + side_by_side)
        second = second_of(read_dataset(str(dataset)), str(dataset), root, None)
        assert second is not None and (second.models.loaded is None) == wrong
        assert not wrong or "is a model of 'demo', not of 'corner-shop'" in str(second.models.fault)
        kept = tracked_folder(root, name)
        assert (kept / SECOND).exists() != wrong and (not wrong or not kept.exists()), "what answers nobody is not kept"
    kept = tracked_folder(root, "demo") / SECOND
    dataset = tmp_path / "demo.yaml"
    dataset.write_text(dataset.read_text().replace(champion.model, "models/0123456789abcdef"))
    second = second_of(read_dataset(str(dataset)), str(dataset), root, None)
    assert second is not None and second.models.loaded is None and not kept.exists()


def test_what_is_tracked_and_compared_is_read_again_while_it_answers(root: Path, tmp_path: Path) -> None:
    dataset, text = tmp_path / "demo.yaml", (SHIPPED / "demo.yaml").read_text()
    click = {"event": "click", "item": "lamp-1", "model": "models/0"}
    body = {"sessions": [{"items": ["lamp-1"], "user_id": f"u{number}"} for number in range(40)], "k": 2}

    def until(client: httpx.Client, serving: str, wanted: Callable[[], object]) -> None:
        draft = tmp_path / "draft.yaml"
        draft.write_text(text + serving)
        draft.replace(dataset)
        deadline = time.monotonic() + LONG_SECONDS
        while not wanted():
            assert client.post("/recommend", json=body).status_code == 200 and time.monotonic() < deadline
            time.sleep(0.05)

    dataset.write_text(text)
    shutil.rmtree(tracked_folder(root, "demo"), ignore_errors=True)
    champion = champion_of(Artifacts(root), "demo")
    assert champion is not None and champion.previous is not None
    with service(root, dataset) as (client, _):

        def arms() -> set[str]:
            return {answer.get("arm") for answer in client.post("/recommend", json=body).json()["sessions"]} - {None}

        assert client.post("/track", json=click).status_code == 404 and not arms()
        until(client, "serving: {tracking: {}}\n", lambda: client.post("/track", json=click).status_code == 200)
        assert not arms()
        until(
            client,
            f"serving: {{tracking: {{}}, side_by_side: {{model: {champion.previous}}}}}\n",
            lambda: len(arms()) == 2,
        )
        assert json.loads((tracked_folder(root, "demo") / SECOND).read_text()) == {"model": champion.previous}
        until(
            client, "serving: {tracking: {}, side_by_side: {model: previous, share: 0.999}}\n", lambda: arms() == {"b"}
        )
        until(client, "serving: {tracking: 7}\n", lambda: "not_read" in client.get("/health").json())
        assert arms() == {"b"} and client.post("/track", json=click).status_code == 200, "it stays as it was before"
        until(client, "serving: {tracking: {users: none}}\n", lambda: not arms())
        assert not (tracked_folder(root, "demo") / SECOND).exists()
        assert client.post("/track", json=click | {"user_id": "ann"}).status_code == 200
        until(client, "", lambda: client.post("/track", json=click).status_code == 404)
    clicks = read_kind(tracked_folder(root, "demo"), "events").filter(item_id="lamp-1", model="models/0")
    assert clicks.height >= 3 and not list((tracked_folder(root, "demo") / "journals").iterdir()), "nothing is lost"
