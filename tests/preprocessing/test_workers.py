"""Batches on processes of this machine and of a Dask scheduler: the sessions of none, also when a worker dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preprocessing.execution import batch, tasks
from preprocessing.execution.processes import Processes
from preprocessing.execution.run import Workers
from preprocessing.execution.workers import workers_of
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.progress import Progress
from tests.preprocessing.small import content

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install distributed")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    simulate(Shop(days=3, users=2500, seed=3), folder)
    return folder


def prepared(shop: Path, root: Path, workers: Workers, progress: Any = lambda line: None) -> Manifest:
    return prepare(Artifacts(root), read_dataset("demo").at(shop), workers=workers, progress=progress)


@pytest.fixture(scope="module")
def alone(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return content(prepared(shop, tmp_path_factory.mktemp("alone"), Workers()))


def polars_threads() -> int:
    import polars

    return polars.thread_pool_size()


def test_two_workers_give_the_sessions_of_none(shop: Path, alone: dict[str, Any], tmp_path: Path) -> None:
    with workers_of("cpu", workers=2) as workers:
        assert workers.min_buckets == 4
        assert workers.executor and workers.executor.submit(polars_threads).result() == 1
        assert content(prepared(shop, tmp_path, replace(workers, threads=1))) == alone


def test_what_fits_in_memory_stays_in_this_process_in_as_many_threads(
    shop: Path, alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process for it would cost its imports, and the rows a way there and back."""
    together, seen = threading.Barrier(2, timeout=600), []
    clean = tasks.clean_bucket

    def cleaning(job: tasks.Job, bucket: int) -> None:
        assert job.spool.folder is None
        together.wait()  # which one thread alone would never come back from
        seen.append((bucket, os.getpid()))
        clean(job, bucket)

    monkeypatch.setattr(tasks, "clean_bucket", cleaning)
    monkeypatch.setattr(batch, "FEW_ROWS", 1000)
    with workers_of("cpu", workers=2) as workers:
        assert content(prepared(shop, tmp_path, workers)) == alone
        assert isinstance(workers.executor, Processes) and workers.executor._forked is None
    assert sorted(seen) == [(0, os.getpid()), (1, os.getpid())]


def test_few_rows_are_one_bucket(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buckets: list[int] = []
    clean = tasks.clean_bucket
    monkeypatch.setattr(tasks, "clean_bucket", lambda job, bucket: (buckets.append(bucket), clean(job, bucket))[1])
    with workers_of("cpu", workers=2) as workers:
        prepared(shop, tmp_path, workers)
    assert buckets == [0]


def process_id() -> int:
    time.sleep(0.2)  # so that the other worker takes the other one
    return os.getpid()


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuses() -> None:
    raise InputError("not this")


def test_what_a_task_raises_is_raised_where_it_was_asked_for_and_one_that_kills_its_workers_ends() -> None:
    with workers_of("cpu", workers=1) as workers:
        assert workers.executor
        with pytest.raises(InputError, match="not this"):
            workers.executor.submit(refuses).result()
        with pytest.raises(RuntimeError, match="died 4 times"):
            workers.executor.submit(dies).result()
        assert workers.executor.submit(polars_threads).result() == 1, "another has taken its place"


class TwoWordsError(Exception):
    """Is pickled, but cannot be read back."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def fails_in_an_odd_way(how: str) -> None:
    if how == "read":
        raise TwoWordsError("odd", "failure")
    if how == "sent":
        error = ValueError("odd failure")
        error.reason = lambda: None  # type: ignore[attr-defined]
        raise error
    raise BaseException("odd failure")  # as what Polars raises when it panics


@pytest.mark.parametrize("how", ["read", "sent", "panic"])
def test_an_error_that_cannot_be_sent_is_said_all_the_same(how: str) -> None:
    with workers_of("cpu", workers=1) as workers:
        assert workers.executor
        before = workers.executor.submit(process_id).result()
        with pytest.raises(Exception, match="odd failure"):
            workers.executor.submit(fails_in_an_odd_way, how).result()
        assert workers.executor.submit(process_id).result() == before, "no worker died of it"


NIGHT = """
import os, sys
from preprocessing.execution.workers import workers_of
from tests.preprocessing.test_workers import process_id, stuck
with workers_of("cpu", workers=2) as workers:
    tasks = [workers.executor.submit(stuck, sys.argv[1], number) for number in range(2)]
    tasks[0].result()
"""


def stuck(folder: str, number: int) -> None:
    (Path(folder) / f"{number}.{os.getpid()}").touch()
    time.sleep(3600)


@pytest.mark.fault("a night that prepares with workers is killed", outcome="no process is left")
def test_a_killed_night_leaves_no_worker_behind(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", NIGHT, str(tmp_path)]) as night:
        while len(list(tmp_path.iterdir())) < 2:
            assert night.poll() is None
            time.sleep(0.1)
        night.kill()
    left = [int(file.suffix[1:]) for file in tmp_path.iterdir()]
    while left:  # as long as it takes, but not as long as their tasks
        assert all(time.time() - file.stat().st_mtime < 3000 for file in tmp_path.iterdir())
        left = [worker for worker in left if Path(f"/proc/{worker}").exists()]
        time.sleep(0.1)


def test_of_a_run_that_fails_no_further_bucket_is_begun(shop: Path, tmp_path: Path) -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    def stop(progress: Progress) -> None:
        if progress.phase == "clean" and progress.done == 1:
            raise Stopped

    with pytest.raises(Stopped), workers_of("cpu", workers=1) as workers:
        prepared(shop, tmp_path, Workers(Slow(workers.executor), min_buckets=20), stop)  # type: ignore[arg-type]
    assert len(list(tmp_path.glob("unfinished/*/*/*/account-*.ipc"))) < 10


def slowed(task: Any, job: Any, bucket: int) -> Any:
    """A task that takes long enough to be killed in its middle."""
    done = task(job, bucket)
    time.sleep(0.5)
    return done


class Slow:
    """Passes tasks on, slowed; each is still done by a worker of the cluster."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def submit(self, task: Any, *arguments: Any) -> Any:
        return self.executor.submit(slowed, task, *arguments)


@pytest.mark.fault("a worker process of preparing is killed", outcome="its share is done again: the same sessions")
def test_a_killed_worker_costs_a_retry_not_the_run(shop: Path, alone: dict[str, Any], tmp_path: Path) -> None:
    with workers_of("cpu", workers=2) as workers:
        assert workers.executor
        victim = workers.executor.submit(process_id).result()
        assert victim != os.getpid()
        killed = []

        def kill_once(progress: Progress) -> None:
            if progress.phase == "clean" and progress.done == 1 and not killed:
                killed.append(victim)
                threading.Timer(0.2, os.kill, (victim, signal.SIGKILL)).start()

        slow = Workers(Slow(workers.executor), workers.min_buckets)  # type: ignore[arg-type]
        assert content(prepared(shop, tmp_path, slow, kill_once)) == alone
        assert killed
        with pytest.raises(ProcessLookupError):
            os.kill(victim, 0)


@pytest.fixture
def scheduler() -> Iterator[str]:
    """A scheduler and a worker that were started apart, as on another machine."""
    dask = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
    ]
    process = subprocess.Popen(dask, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    address = next(line.split()[-1] for line in process.stderr if "Scheduler at:" in line)
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            address,
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=1800)
        yield address
    finally:
        for one in (worker, process):
            one.terminate()
            one.wait(1800)


def test_workers_of_a_running_scheduler(shop: Path, alone: dict[str, Any], tmp_path: Path, scheduler: str) -> None:
    with workers_of("cpu", scheduler=scheduler) as workers:
        assert workers.min_buckets == 2
        assert content(prepared(shop, tmp_path, workers)) == alone


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any, **named: Any) -> str:
        with pytest.raises(InputError) as error, workers_of(*given, **named):
            raise AssertionError("not refused")
        return str(error.value)

    monkeypatch.setattr("preprocessing.execution.workers.PATIENCE_SECONDS", 1)
    assert "No scheduler answers at 'tcp://127.0.0.1:9'" in refused("cpu", scheduler="tcp://127.0.0.1:9")
    assert "tcp://127.0.0.1:8786" in refused("cpu", scheduler="nonsense")
    assert "not both" in refused("cpu", workers=2, scheduler="tcp://127.0.0.1:9")
    assert "give 1 or more" in refused("cpu", workers=0)
    if not Path("/dev/nvidia0").exists():
        assert "--engine cpu" in refused("gpu", workers=1)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install distributed" in refused("cpu", scheduler="tcp://127.0.0.1:9")
    with workers_of("cpu") as workers:
        assert workers == Workers()


def test_where_no_worker_can_be_made_any_more_it_is_said() -> None:
    executor = Processes(1)
    try:
        worker = executor.submit(os.getpid).result()
        assert executor._forked
        executor._forked.kill()
        executor._forked.wait()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"has ended \(exit status -9.*fewer --workers"):
            executor.submit(os.getpid).result()
    finally:
        executor.shutdown()
