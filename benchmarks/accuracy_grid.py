"""Many training runs side by side on a GPU: which settings validate best on the published tables, and what they test.

    python benchmarks/accuracy_grid.py --prepare DIR              prepare the sessions of all tables into DIR, once
    python benchmarks/accuracy_grid.py --data DIR --out FILE      do the runs of benchmarks/accuracy_grid.yaml
    python benchmarks/accuracy_grid.py --out FILE --page          the table alone, anew of what FILE holds

Settings are chosen by validation: the table is sorted by it, and what was tested stands beside it. Needs neither Prefect nor
MLflow. Each result is appended to FILE as one JSON line when its run is over; runs that are there already are not done again,
a failed one is said and leaves the rest alone, and at --limit seconds what is not done is given up. --workers processes share
the GPU, and do run after run; runs of groups with `device: cpu` are done by --cpu-workers others meanwhile.

When the runs are over, or --finals seconds have passed, the best validated settings of each table are run with further seeds,
before what is left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
sys.path[:0] = [str(PROJECT), str(HERE)]

from accuracy_hours import Windows, write_hours  # noqa: E402
from accuracy_run import Run  # noqa: E402

from schemas.errors import InputError, parse  # noqa: E402
from schemas.yaml_keys import load_yaml  # noqa: E402

GRID = HERE / "accuracy_grid.yaml"
SHARED = Path(os.environ.get("OVERNIGHT_SHARED", PROJECT / ".." / "shared")).resolve()
Json = dict[str, Any]
RESULT = "RESULT "


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
                        source=folder / group.data / ("hours" if prepared.windows else ""),
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
    """The sessions of all tables, each in a root of its own of which nothing but these is kept."""
    from flows.settings.settings import Data, resolve
    from preprocessing.pipeline import prepare

    for name, prepared in grid.data.items():
        source, root = SHARED / "data" / prepared.folder, folder / name
        if prepared.windows:
            write_hours(source, root / "hours")
            _keep_hours(root / "hours" / "events.parquet", prepared.windows)
            continue
        with tempfile.TemporaryDirectory() as temporary:
            data = Data(
                dataset=prepared.dataset, source=str(source), root=Path(temporary), changes=prepared.changes
            )
            found = resolve(data)
            sessions = prepare(found.artifacts, found.dataset, progress=lambda line: None)
            shutil.copytree(sessions.folder, root / "sessions" / sessions.id, dirs_exist_ok=True)
        print(f"{name}: {sessions.facts['sessions']:,} sessions, {sessions.facts['events']:,} events")


def _keep_hours(events: Path, windows: dict[str, Windows]) -> None:
    """Of all hours those that the windows read."""
    import polars as pl
    from accuracy_hours import day_of

    wanted = [day_of(hour) for each in windows.values() for hour in range(each.first, each.last + 1)]
    table = pl.read_parquet(events)
    table.filter(pl.col("timestamp").dt.date().is_in(wanted)).write_parquet(events, compression_level=19)


class Pool:
    """Processes that do run after run of one queue; results are appended to a file."""

    def __init__(self, board: Board, runs: Iterable[Run], workers: int, *, gpu: bool) -> None:
        self.board, self.gpu = board, gpu
        self.runs: queue.PriorityQueue[tuple[int, int, Run]] = queue.PriorityQueue()
        self.count = 0
        for run in runs:
            self.put(run)
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        self.active = 0

    def put(self, run: Run, urgency: int = 1) -> None:
        """One more run; those of a lower number come first."""
        self.count += 1
        self.runs.put((urgency, self.count, run))

    def _work(self) -> None:
        process: subprocess.Popen[str] | None = None
        while not self.board.over:
            try:
                run = self.runs.get(timeout=0.5)[2]
            except queue.Empty:
                continue
            self.active += 1
            process = process if process and process.poll() is None else self._start()
            if not self._do(process, run):
                process.kill()
            self.active -= 1
        if process:
            process.kill()

    def _start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
        if not self.gpu:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        process = subprocess.Popen(
            [sys.executable, str(HERE / "accuracy_run.py")],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.board.processes.append(process)
        return process

    def _do(self, process: subprocess.Popen[str], run: Run) -> bool:
        """Whether a process has done a run, and can do more."""
        assert process.stdin and process.stdout
        last = ""
        with contextlib.suppress(OSError):
            process.stdin.write(run.model_dump_json() + "\n")
            process.stdin.flush()
            for line in process.stdout:
                if line.startswith(RESULT):
                    self.board.keep(json.loads(line[len(RESULT) :]))
                    return True
                last = line.strip() or last
                self.board.note(run, line)
        if not self.board.over:
            self.board.keep({"data": run.data, "name": run.name, "seed": run.seed, "error": last[:500]})
        return False


class Board:
    """What became of the runs: results in a file, what they say in another beside it."""

    def __init__(self, out: Path) -> None:
        self.out, self.log = out, out.with_suffix(".log")
        self.lock, self.over = threading.Lock(), False
        self.began = time.monotonic()
        self.processes: list[subprocess.Popen[str]] = []
        self.results = read_results(out)

    def keep(self, result: Json) -> None:
        """Append a result."""
        with self.lock, self.out.open("a") as file:
            self.results.append(result)
            file.write(json.dumps(result) + "\n")
        said = result.get("error") or f"{result['validation']} {result['test']} {result['seconds']} s"
        print(f"[{self.seconds:.0f}] {result['data']} {result['name']} {result['seed']}: {said}", flush=True)

    def note(self, run: Run, line: str) -> None:
        """Append what a run says."""
        with self.lock, self.log.open("a") as file:
            file.write(f"[{self.seconds:.0f}] {run.data} {run.name} {run.seed}: {line}")

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def has(self, run: Run) -> bool:
        """Whether the run was done."""
        return any(_key(result) == (run.data, run.name, run.seed) and "error" not in result for result in self.results)


def _key(result: Json) -> tuple[str, str, int]:
    return result["data"], result["name"], result["seed"]


def read_results(out: Path) -> list[Json]:
    """What a file of results holds."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []


def best_of_each(grid: Grid, results: list[Json]) -> list[tuple[str, str]]:
    """(data, name) of the best validated run of each table."""
    best: dict[str, Json] = {}
    for result in results:
        if "error" not in result:
            table, metric = grid.table_of(result["data"]), grid.data[result["data"]].metrics[0]
            if table not in best or result["validation"][metric] > best[table]["validation"][metric]:
                best[table] = result
    return [(result["data"], result["name"]) for result in best.values()]


def run_all(grid: Grid, runs: list[Run], board: Board, workers: int, cpu_workers: int, limit: float, finals: float) -> None:
    """Do the runs that are not done yet, until they are or the limit is reached."""
    todo = [run for run in runs if not board.has(run)]
    pools = {
        gpu: Pool(board, [run for run in todo if run.gpu == gpu], count, gpu=gpu)
        for gpu, count in ((True, workers), (False, cpu_workers))
    }
    for pool in pools.values():
        for thread in pool.threads:
            thread.start()
    added = not grid.final_seeds
    while board.seconds < limit:
        idle = all(pool.runs.empty() and not pool.active for pool in pools.values() if pool.threads)
        if not added and (idle or board.seconds > finals):
            added = True
            wanted = best_of_each(grid, board.results)
            for run in runs:
                if (run.data, run.name) in wanted:
                    for seed in grid.final_seeds:
                        again = run.model_copy(update={"seed": seed})
                        if not board.has(again):
                            pools[run.gpu].put(again, 0)
        elif idle:
            break
        time.sleep(0.5)
    board.over = True
    for process in board.processes:
        process.kill()


def page(grid: Grid, results: list[Json]) -> str:
    """A table of each published table, means over seeds, the best validated settings first."""
    lines: list[str] = []
    for table in dict.fromkeys(map(grid.table_of, grid.data)):
        of_table = [result for result in results if grid.table_of(result["data"]) == table and "error" not in result]
        runs = {}
        for result in of_table:
            runs.setdefault((result["data"], result["name"]), []).append(result)
        if not runs:
            continue
        metrics = next(grid.data[data].metrics for data, _ in runs)
        lines += ["", f"## {table}", "", _row("run", *(f"validation {m}" for m in metrics), *(f"test {m}" for m in metrics), "best step of", "s", "seeds")]
        lines.append("|---" * (2 * len(metrics) + 4) + "|")
        for (data, name), each in sorted(runs.items(), key=lambda run: -_mean(run[1], "validation", metrics[0])):
            numbers = [f"{_mean(each, which, m):.4f}" for which in ("validation", "test") for m in metrics]
            steps = f"{each[0].get('best_step', '')} of {each[0]['steps']}"
            seconds = f"{sum(result['seconds'] for result in each) / len(each):.0f}"
            lines.append(_row(f"{data}: {name}", *numbers, steps, seconds, ", ".join(str(r["seed"]) for r in each)))
    failed = [f"- {r['data']} {r['name']} {r['seed']}: {r['error']}" for r in results if "error" in r]
    return "\n".join([*lines, *(["", "Failed:", *failed] if failed else []), ""])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _mean(results: list[Json], which: str, metric: str) -> float:
    return sum(result[which][metric] for result in results) / len(results)


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
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of all runs, to try the grid")
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
        run_all(grid, runs, board, given.workers, given.cpu_workers, given.limit, given.finals)
    print(page(grid, read_results(given.out)))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
