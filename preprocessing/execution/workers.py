"""Workers that run a batch's tasks, one bucket of users each: processes of this machine, or dask.distributed's.

    workers N                 a batch that fits in memory: N threads of this process, which nothing has to be handed to;
                              a larger one `Processes`: forks of a process that has imported what tasks need
    workers N, engine gpu     dask-cuda's LocalCUDACluster, a process a GPU
    scheduler ADDRESS         the workers of a Dask scheduler, on any machine

What a worker that died was doing is done again by another one, three times at most. Workers share the artifact root with
whoever started the run: on other machines it must be the same folder of a shared file system.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from preprocessing.engines import EngineName, engine_of
from preprocessing.execution.processes import RETRIES, Processes
from preprocessing.execution.run import Workers
from schemas.errors import InputError, reason

BUCKETS_A_WORKER = 2  # so that one who is done early can take another
PATIENCE_SECONDS = 600  # a busy machine needs long; no address at all is refused at once
LOCAL = {
    "host": "127.0.0.1",
    "dashboard_address": None,
    "threads_per_worker": 1,
    "memory_limit": 0,  # buckets bound the memory; a worker that is paused or killed on a guess would not
}


@contextmanager
def workers_of(engine: EngineName, workers: int | None = None, scheduler: str | None = None) -> Iterator[Workers]:
    """This process alone; or `workers` new processes (with the engine `gpu`, one a GPU); or those of a running `scheduler`.

    Raises:
        InputError: when Dask or a GPU is missing, or when the scheduler does not answer or has no workers.
    """
    if workers is None and scheduler is None:
        yield Workers()
        return
    if workers is not None and scheduler is not None:
        raise InputError(f"Give workers ({workers}) or a scheduler ({scheduler}), which has its own, not both.")
    if workers is not None and workers < 1:
        raise InputError(
            f"workers: {workers} is too few; give 1 or more, or leave it out to work in this process alone."
        )
    if workers is not None and engine != "gpu":
        with Processes(workers) as processes:
            yield Workers(processes, min_buckets=BUCKETS_A_WORKER * workers, threads=workers)
        return
    with _client(workers, scheduler) as client:
        count = len(client.scheduler_info()["workers"])
        if not count:
            raise InputError(f"The scheduler {scheduler} has no workers. Start some: dask worker {scheduler}")
        yield Workers(client.get_executor(retries=RETRIES), min_buckets=BUCKETS_A_WORKER * count)


@contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """The client of a scheduler that runs, or of a new one with a worker a GPU."""
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise InputError(
            "A scheduler, and workers on GPUs, need Dask: pip install distributed. Or leave out --scheduler, and of --workers "
            "and --engine gpu one."
        ) from None
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=PATIENCE_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"No scheduler answers at {scheduler!r} ({reason(error)}). Start one: dask scheduler --host 127.0.0.1; "
                "its address looks like tcp://127.0.0.1:8786."
            ) from None
        with client:
            yield client
        return
    # Set before a worker begins, where it would be too late once Polars is imported.
    alone = {"distributed.nanny.pre-spawn-environ": {"POLARS_MAX_THREADS": "1"}}
    with dask.config.set(alone), _cuda_cluster(workers) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def _cuda_cluster(workers: int | None) -> Any:
    """One worker for each of the first so many GPUs."""
    engine_of("gpu")
    try:
        from dask_cuda import LocalCUDACluster  # type: ignore[import-not-found]
    except ImportError:
        raise InputError("--engine gpu with --workers needs dask-cuda: pip install dask-cuda.") from None
    try:
        return LocalCUDACluster(n_workers=workers, silence_logs=logging.ERROR, **LOCAL)
    except ValueError as error:
        raise InputError(f"workers: {workers} ({error}); give at most as many as this machine has GPUs.") from None
