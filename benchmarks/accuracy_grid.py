"""Many training runs side by side on a GPU: which settings validate best on the published tables, and what they test.

    python benchmarks/accuracy_grid.py --prepare DIR              prepare the sessions of all tables into DIR, once
    python benchmarks/accuracy_grid.py --data DIR --out FILE      do the runs of benchmarks/accuracy_grid.yaml
    python benchmarks/accuracy_grid.py --out FILE --page          the table alone, anew of what FILE holds

Settings are chosen by validation: the table is sorted by it, and what was tested stands next to it. Needs neither Prefect nor
MLflow. Each result is appended to FILE as one JSON line when its run is over; runs that are there already are not done again,
a failed one is said and leaves the rest alone, and at --limit seconds what is not done is given up. --workers processes share
the GPU, and do run after run; runs of groups with `device: cpu` are done by --cpu-workers more processes meanwhile.

When the runs are over, or --finals seconds have passed, two things are done with several seeds, before what is left: the best
validated run of each table, and all settings together that were better than the table's `base` in a run of their own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
sys.path[:0] = [str(PROJECT), str(HERE)]

from accuracy_choice import best_of_each, combine, page  # noqa: E402
from accuracy_hours import Windows, prepare_hours  # noqa: E402
from accuracy_pool import Board, Pool, read_results  # noqa: E402
from accuracy_run import Run  # noqa: E402

from schemas.errors import InputError, parse  # noqa: E402
from schemas.yaml_keys import load_yaml  # noqa: E402

GRID = HERE / "accuracy_grid.yaml"
SHARED = Path(os.environ.get("OVERNIGHT_SHARED", PROJECT / ".." / "shared")).resolve()
Json = dict[str, Any]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prepared(_Frozen):
    """Sessions that are prepared once: a dataset, and what of it is changed."""

    dataset: str
    folder: str = Field(description="Of $OVERNIGHT_SHARED/data.")
    table: str = Field("", description="The published table that they are for. Empty: the name.")
    changes: Json = {}
    metrics: tuple[str, ...] = ("ndcg@10", "recall@10")
    windows: dict[str, Windows] = {}


class Group(_Frozen):
    """Runs that differ in some settings."""

    data: str
    device: Literal["gpu", "cpu"] = "gpu"
    preset: str | None = None
    settings: tuple[str, ...] = Field((), description="Of each run; its own count last.")
    seeds: tuple[int, ...] = (17,)
    runs: dict[str, tuple[str, ...]] = Field(min_length=1)


class Grid(_Frozen):
    """All runs, in order of worth."""

    data: dict[str, Prepared]
    final_seeds: tuple[int, ...] = ()
    base: dict[str, str] = Field(
        {}, description="Of these sessions the run that further ones differ from in one setting."
    )
    shared: dict[str, tuple[str, ...]] = Field({}, description="Settings that groups take by an anchor.")
    groups: tuple[Group, ...]

    def table_of(self, data: str) -> str:
        """The published table that runs on these sessions are for."""
        return self.data[data].table or data

    def runs(self, folder: Path, compiled_from: int | None = None) -> list[Run]:
        """The runs in order of worth, each on its sessions below `folder`."""
        made = []
        for group in self.groups:
            prepared = self.data[group.data]
            for name, settings in group.runs.items():
                for seed in group.seeds:
                    run = Run(
                        name=name,
                        data=group.data,
                        root=folder / group.data,
                        dataset=prepared.dataset,
                        changes=prepared.changes,
                        settings=(*group.settings, *settings),
                        preset=group.preset,
                        seed=seed,
                        metrics=prepared.metrics,
                        windows=prepared.windows,
                        compiled_from=compiled_from,
                        gpu=group.device == "gpu",
                    )
                    made.append(run)
        return made


def read_grid(path: Path = GRID) -> Grid:
    """The file of runs."""
    return parse(Grid, load_yaml(path.read_text(), str(path)), str(path))


def prepare_all(grid: Grid, folder: Path) -> None:
    """The sessions of all tables, each in a root of its own of which nothing else is kept; of hours one for each window."""
    from flows.settings.settings import Data, resolve
    from preprocessing.pipeline import prepare

    for name, prepared in grid.data.items():
        with tempfile.TemporaryDirectory() as temporary:
            source = str(SHARED / "data" / prepared.folder)
            data = Data(dataset=prepared.dataset, source=source, root=Path(temporary), changes=prepared.changes)
            if prepared.windows:
                made = {which: prepare_hours(data, windows) for which, windows in prepared.windows.items()}
            else:
                resolved = resolve(data)
                made = {"": prepare(resolved.artifacts, resolved.dataset, progress=lambda line: None)}
            for which, sessions in made.items():
                kept = folder / name / which / "sessions" / sessions.id
                shutil.copytree(sessions.folder, kept, dirs_exist_ok=True)
                print(f"{name}: {which} {sessions.facts['sessions']:,} sessions, {sessions.facts['events']:,} events")


def run_all(grid: Grid, runs: list[Run], board: Board, pools: dict[bool, Pool], limit: float, finals: float) -> None:
    """Do the runs, those on the GPU in the pool `True`, until they are done or the limit is reached."""
    for pool in pools.values():
        for run in runs:
            if run.gpu == pool.gpu and not board.has(run):
                pool.put(run)
        pool.start()
    added = False
    while board.seconds < limit:
        idle = all(pool.is_idle for pool in pools.values())
        if not added and (idle or board.seconds > finals):
            added = True
            for run in finalists(grid, runs, board.results):
                if not board.has(run):
                    pools[run.gpu].put(run, urgent=True)
        elif idle:
            break
        time.sleep(0.5)
    board.end()


def finalists(grid: Grid, runs: list[Run], results: list[Json]) -> list[Run]:
    """Of each table the best validated settings with further seeds, and what is better than `base` in one run, with all."""
    best = best_of_each(results, grid.table_of)
    again = [run.model_copy(update={"seed": seed}) for run in runs for seed in grid.final_seeds]
    chosen = {(run.data, run.name, run.seed): run for run in again if (run.data, run.name) in best}
    for run in runs:
        if grid.base.get(run.data) == run.name and (combined := combine(run, results)):
            for seed in (runs[0].seed, *grid.final_seeds):
                chosen[run.data, combined.name, seed] = combined.model_copy(update={"seed": seed})
    return [run for run in chosen.values() if not run.windows]  # hours take too long to be done again


def main() -> None:
    """What the command asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=Path, default=GRID)
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="prepare the sessions into this folder")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder of prepared sessions")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results, one JSON line a run")
    parser.add_argument("--page", action="store_true", help="print the table of what is in FILE alone")
    parser.add_argument("--workers", type=int, default=8, help="processes that share the GPU")
    parser.add_argument("--cpu-workers", type=int, default=4, help="processes for runs on the CPU")
    parser.add_argument("--limit", type=float, default=1e9, help="seconds, at which all ends")
    parser.add_argument("--finals", type=float, default=1e9, help="seconds, at which the best get further seeds")
    parser.add_argument("--only", nargs="*", metavar="DATA", help="runs of these sessions alone")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of all runs, to try the grid"
    )
    parser.add_argument("--compiled-from", type=int, help="runs of so much work are compiled (training/device.py)")
    given = parser.parse_args()
    grid = read_grid(given.grid)
    if given.prepare:
        prepare_all(grid, given.prepare)
        return
    if not given.out or not (given.page or given.data):
        parser.error("give --prepare DIR, or --data DIR and --out FILE, or --out FILE and --page")
    if not given.page:
        runs = [run for run in grid.runs(given.data, given.compiled_from) if not given.only or run.data in given.only]
        runs = [run.model_copy(update={"settings": (*run.settings, *given.set)}) for run in runs]
        board = Board(given.out)
        pools = {gpu: Pool(board, count, gpu=gpu) for gpu, count in ((True, given.workers), (False, given.cpu_workers))}
        run_all(grid, runs, board, pools, given.limit, given.finals)
    print(page(read_results(given.out), grid.table_of))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
