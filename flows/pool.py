"""The work pool of the deployments, and what a server that went down with its runs left in it.

Two queues: `nights`, whose runs write days and models, one at a time; and `by-hand`, for changes of the pointer, which take
seconds and must not wait for a night.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.states import State

POOL, NIGHTS, BY_HAND = "overnight", "nights", "by-hand"
AT_ONCE = {NIGHTS: 1, BY_HAND: None}  # runs of a queue at a time
WAS_CUT_OFF = "Its process is gone: server and worker ended while it ran. Run it again, it goes on where it was."
PAGE = 200  # runs that a server returns at most in one answer


def prepare_pool(url: str, environment: dict[str, str]) -> None:
    """Make pool and queues, or set their limits to what they are to be. Safe to repeat."""
    from prefect.client.schemas.actions import WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    with _client(url) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:  # the command knows the template of jobs
            create = [sys.executable, "-m", "prefect", "work-pool", "create", POOL, "--type", "process"]
            subprocess.run(create, env=environment, check=True)
        client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=None))
        for queue, limit in AT_ONCE.items():
            try:
                there = client.read_work_queue_by_name(queue, work_pool_name=POOL)
            except ObjectNotFound:
                client.create_work_queue(queue, concurrency_limit=limit, work_pool_name=POOL)
            else:
                client.request(
                    "PATCH",
                    "/work_pools/{work_pool_name}/queues/{name}",
                    path_params={"work_pool_name": POOL, "name": there.name},
                    json={"concurrency_limit": limit},
                )


def end_dead_runs(url: str, say: Callable[[str], object], alive: Callable[[str], bool] = lambda _: False) -> list[str]:
    """Mark runs Crashed that a server took down with it, and free the slots they hold; their names.

    To be called while no worker of the pool runs, so that nothing in it can be under way. Runs that a terminal began have no
    slot, and go the same way. Those whose id is `alive`, and all that a terminal began while there is one, stay.
    """
    from prefect.states import Cancelled, Crashed

    from flows.notify import send

    ended = []
    with _client(url) as client:
        runs = list(_under_way(client))
        spared = any(alive(str(run.id)) for run in runs)
        for run in runs:
            if alive(str(run.id)) or (spared and run.deployment_id is None):
                say(f"Run {run.name} is still under way in another process: it goes on.")
                continue
            cancelling = run.state is not None and run.state.is_cancelling()
            state: State[object] = Cancelled(message=WAS_CUT_OFF) if cancelling else Crashed(message=WAS_CUT_OFF)
            client.set_flow_run_state(run.id, state, force=True)
            ended.append(run.name)
            say(f"Run {run.name} was cut off when server and worker ended: {state.name}.")
        if not spared:
            _free_slots(client)
        if ended:
            send(f"Overnight: {', '.join(ended)}: {WAS_CUT_OFF}", say)
    return ended


def _under_way(client: SyncPrefectClient) -> Iterator[FlowRun]:
    """Runs that are running, about to, or being cancelled."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import StateType

    under_way = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    runs = FlowRunFilter.model_validate({"state": {"type": {"any_": under_way}}})
    offset = 0
    while page := client.read_flow_runs(flow_run_filter=runs, limit=PAGE, offset=offset):
        yield from page
        offset += len(page)


def _free_slots(client: SyncPrefectClient) -> None:
    """Nothing runs, so no deployment's slot is taken: one whose lease was lost with the server would be held for ever."""
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

    for limit in client.read_global_concurrency_limits(limit=PAGE, offset=0):
        if limit.name.startswith("deployment:") and limit.active_slots:
            client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(active_slots=0))


@contextmanager
def _client(url: str) -> Iterator[SyncPrefectClient]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        yield client


if __name__ == "__main__":
    import os

    prepare_pool(os.environ["PREFECT_API_URL"], dict(os.environ))
