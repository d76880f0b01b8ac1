"""The whole ETL on the CPU and on the GPU of one machine, in turn; the last line printed is JSON.

    python benchmarks/etl_gpu.py ROOT ROWS[,ROWS ...] [--runs 2] [--bucket-rows N] [--engines cpu,gpu]

Events are made below ROOT, once, by the peers' generator ($OVERNIGHT_SHARED/peers/gen_events.py, or shared/ in the project).
Each run is a fresh process, which first prepares a few events: for the GPU this loads cuDF, its kernels and the memory pool.
What that cost is said apart (`warm_up`). Then come wall and CPU seconds by phase, and the most device memory in use. The
sessions of both engines are read back and compared row by row: where they differ the script ends with status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
WARM_ROWS = 100_000
Json = dict[str, Any]


class Laps:
    """Wall and CPU seconds of each phase, from the reports of progress."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self._began: dict[str, tuple[float, float]] = {}

    def __call__(self, progress: Any) -> None:
        """Take a report: the first of a phase begins it, the last ends it."""
        phase, now = progress.phase, (time.perf_counter(), time.process_time())
        if progress.total and progress.done == 0:
            self._began[phase] = now
        elif progress.total and progress.done == progress.total and phase in self._began:
            began = self._began.pop(phase)
            self.wall[phase] = round(self.wall.get(phase, 0.0) + now[0] - began[0], 3)
            self.cpu[phase] = round(self.cpu.get(phase, 0.0) + now[1] - began[1], 3)


def measure(engine: str, source: Path, warm: Path, root: Path, bucket_rows: int | None) -> Json:
    """Prepare once, after a preparation of few events."""
    if library := os.environ.get("NVJITLINK"):  # newer than the one that torch brings
        import ctypes

        ctypes.CDLL(library)
    began, spent = time.perf_counter(), time.process_time()
    sys.path[:0] = [str(PROJECT), str(HERE)]
    from etl_run import dataset_of

    from preprocessing import frames
    from preprocessing.engines import polars as engines
    from preprocessing.execution.run import Workers
    from preprocessing.pipeline import prepare
    from schemas.artifacts import Artifacts

    memory = _counted(engines) if engine == "gpu" else None
    trips: list[int] = []
    plain = frames.run

    def run(plans: Any, target: Any) -> Any:
        if target != frames.CPU:
            trips.append(len(plans))
        return plain(plans, target)

    frames.run = run
    workers = Workers(bucket_rows=bucket_rows)

    def once(events: Path, into: Path, laps: Laps) -> Any:
        shutil.rmtree(into, ignore_errors=True)
        dataset = dataset_of("sessions", events)
        return prepare(Artifacts(into), dataset, engine=engine, workers=workers, progress=laps)  # type: ignore[arg-type]

    once(warm, root.with_name(f"{root.name}-warm"), Laps())
    warm_up = {"wall_s": round(time.perf_counter() - began, 3), "cpu_s": round(time.process_time() - spent, 3)}
    trips.clear()
    laps, began, spent = Laps(), time.perf_counter(), time.process_time()
    manifest = once(source, root, laps)
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    return {
        "engine": engine,
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "wall_by_phase": laps.wall | {"rest": round(wall - sum(laps.wall.values()), 3)},
        "cpu_by_phase": laps.cpu | {"rest": round(cpu - sum(laps.cpu.values()), 3)},
        "warm_up": warm_up,
        "trips": len(trips),
        "plans": sum(trips),
        "peak_device_mb": memory[0].allocation_counts.peak_bytes // 2**20 if memory else 0,
        "sessions": manifest.facts["sessions"],
        "events": manifest.facts["events"],
        "folder": str(manifest.folder),
    }


def _counted(engines: Any) -> list[Any]:
    """Put a counter before the memory that plans are given; it is in the list once the engine is made."""
    import rmm

    made: list[Any] = []
    plain = engines.memory_resource

    def counted() -> Any:
        made.append(rmm.mr.StatisticsResourceAdaptor(plain()))
        return made[0]

    engines.memory_resource = counted
    return made


def compare(ours: str, theirs: str) -> Json:
    """Whether two folders of sessions hold the same rows, and which of all files differ by a byte."""

    folders = [Path(ours), Path(theirs)]
    names = [
        sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) for folder in folders
    ]
    both = sorted(set(names[0]) & set(names[1]) - {"manifest.json"})
    other = [name for name in both if _digest(folders[0] / name) != _digest(folders[1] / name)]
    days = sorted({name.split("/")[1] for name in both if name.startswith("sessions/")})
    unequal = []
    for day in days:
        tables = [_sessions(folder / "sessions" / day) for folder in folders]
        if not tables[0].equals(tables[1], null_equal=True):
            unequal.append(f"{day}: {_difference(*tables)}")
    return {
        "same_rows": not unequal and bool(days) and names[0] == names[1],
        "days": len(days),
        "unequal": unequal[:5],
        "files": len(both),
        "files_that_differ": other[:12],
        "only_in_one": sorted(set(names[0]) ^ set(names[1]))[:12],
    }


def _sessions(folder: Path) -> Any:
    import polars as pl

    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in sorted(folder.glob("*.parquet"))])


def _difference(mine: Any, other: Any) -> str:
    if mine.shape != other.shape or mine.schema != other.schema:
        return f"{mine.shape} {mine.schema} / {other.shape} {other.schema}"
    return ", ".join(name for name in mine.columns if not mine[name].equals(other[name], null_equal=True))


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def child(*arguments: object) -> Json:
    """This script again, in a process of its own."""
    shared = os.environ.get("OVERNIGHT_SHARED") or str(PROJECT / "shared")
    command = [sys.executable, str(HERE / "etl_gpu.py"), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OVERNIGHT_SHARED": shared}
    )
    if done.returncode:
        return {"error": (done.stderr or done.stdout)[-3000:]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def events(root: Path, rows: int) -> Path:
    """A folder of about so many events, made once."""
    folder = root / f"events-{rows}"
    if not (folder / "done").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        if error := child(root, 0, "--make", rows).get("error"):
            raise SystemExit(error)
        (folder / "done").touch()
    return folder / "events"


def in_turn(root: Path, rows: int, engines: list[str], runs: int, bucket_rows: int | None) -> Json:
    """All engines on the same events, `runs` times."""
    source, warm = events(root, rows), events(root, WARM_ROWS)
    record: Json = {"rows": rows, **{engine: [] for engine in engines}}
    for _ in range(runs):
        for engine in engines:
            options = ["--bucket-rows", bucket_rows] if bucket_rows else []
            run = child(root, 0, "--measure", engine, source, warm, root / f"root-{rows}-{engine}", *options)
            record[engine].append(run)
            print(json.dumps({"rows": rows, **run}), flush=True)
    last = [record[engine][-1] for engine in engines]
    if len(last) == 2 and all("folder" in run for run in last):
        record["compared"] = compare(last[0]["folder"], last[1]["folder"])
        best = [min(run["wall_s"] for run in record[engine] if "wall_s" in run) for engine in engines]
        record["times_faster"] = round(best[0] / best[1], 2)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("rows", help="events, several with commas between")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--engines", default="cpu,gpu")
    parser.add_argument("--bucket-rows", type=int, help="rows of a bucket; as the engine chooses if left out")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    root = given.root.resolve()
    if given.make:
        sys.path[:0] = [str(PROJECT), str(HERE)]
        from etl_run import make_events

        print(json.dumps(make_events(given.make, root / f"events-{given.make}")))
    elif given.measure:
        engine, *paths = given.measure
        print(json.dumps(measure(engine, *map(Path, paths), given.bucket_rows)))
    else:
        root.mkdir(parents=True, exist_ok=True)
        sizes = [int(size) for size in given.rows.split(",")]
        records = [in_turn(root, size, given.engines.split(","), given.runs, given.bucket_rows) for size in sizes]
        print(json.dumps(records))
        if any("error" in run for record in records for engine in given.engines.split(",") for run in record[engine]):
            raise SystemExit(1)
        if not all(record.get("compared", {"same_rows": True})["same_rows"] for record in records):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
