"""The whole ETL on the CPU and on the GPU of one machine, in turn; the last line printed is JSON.

    python benchmarks/etl_gpu.py ROOT ROWS[,ROWS ...] [--runs 2] [--bucket-rows N] [--engines cpu,gpu,gpu:copy]

Events are made below ROOT, once, by the peers' generator ($OVERNIGHT_SHARED/peers/gen_events.py, or shared/ in the project).
Variants of an engine follow its name: `plain` runs without clocks (see `clocks`), which wait for the GPU after each plan;
`copy` copies rows for every plan and back.
Each run is a fresh process, which first prepares a few events: for the GPU this loads cuDF, its kernels and the memory pool.
What that cost is said apart (`warm_up`). Then come wall and CPU seconds by phase, and the most device memory in use. The
sessions of both engines are read back and compared row by row: where they differ the script ends with status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etl_gpu_clocks import Laps, Spans, clocks
from etl_gpu_same import compare

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
WARM_ROWS, PART_ROWS = 100_000, 2_500_000
Json = dict[str, Any]


def measure(engine: str, source: Path, warm: Path, root: Path, bucket_rows: int | None, variants: list[str]) -> Json:
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

    memory = _counted(engines) if engine == "gpu" and "plain" not in variants else None
    spans = clocks(engine == "gpu") if "plain" not in variants else Spans()
    trips: list[int] = []
    plain = frames.run

    def run(plans: Any, target: Any, stays: int | None = None) -> Any:
        if target == frames.CPU:
            return plain(plans, target, stays)
        trips.append(len(plans))
        if "copy" not in variants:
            return plain(plans, target, stays)
        return [frames.to_host(rows) for rows in plain(plans, target, None)]

    frames.run = run
    if "copy" in variants:  # as before rows stayed on the GPU
        _never_stay(frames)
    workers = Workers(bucket_rows=bucket_rows)

    def once(events: Path, into: Path, laps: Laps) -> Any:
        shutil.rmtree(into, ignore_errors=True)
        dataset = dataset_of("sessions", events)
        return prepare(Artifacts(into), dataset, engine=engine, workers=workers, progress=laps)  # type: ignore[arg-type]

    once(warm, root.with_name(f"{root.name}-warm"), Laps())
    warm_up = {"wall_s": round(time.perf_counter() - began, 3), "cpu_s": round(time.process_time() - spent, 3)}
    trips.clear()
    spans.clear()
    laps, began, spent = Laps(), time.perf_counter(), time.process_time()
    manifest = once(source, root, laps)
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    return {
        "engine": engine,
        "variants": variants,
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "wall_by_phase": laps.wall | {"rest": round(wall - sum(laps.wall.values()), 3)},
        "cpu_by_phase": laps.cpu | {"rest": round(cpu - sum(laps.cpu.values()), 3)},
        "spans": spans.summary(),
        "warm_up": warm_up,
        "trips": len(trips),
        "plans": sum(trips),
        "peak_device_mb": memory[0].allocation_counts.peak_bytes // 2**20 if memory else 0,
        "sessions": manifest.facts["sessions"],
        "events": manifest.facts["events"],
        "folder": str(manifest.folder),
    }


def _never_stay(frames: Any) -> None:
    """Let rows be copied for every plan, as frames are that are used once."""
    from preprocessing.execution import buckets

    for module in (frames, buckets):
        module.on = lambda target, frame: frame


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
    """A folder of about so many events, made once: files of `PART_ROWS`, each of users of its own, by a process each."""
    folder = root / f"events-{rows}"
    if not (folder / "done").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "events").mkdir(parents=True)
        starts = range(0, rows, PART_ROWS)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            made = threads.map(lambda start: child(folder, start, "--make", min(PART_ROWS, rows - start)), starts)
            if errors := [part["error"] for part in made if "error" in part]:
                raise SystemExit(errors[0])
        (folder / "done").touch()
    return folder / "events"


def make(rows: int, start: int, folder: Path) -> Json:
    """One file of events, of users from number `start` / 10 on."""
    sys.path[:0] = [str(PROJECT), str(HERE)]
    import polars as pl
    from etl_run import generator

    users = pl.col("user_id") + start // 10
    table = generator().make_events(rows, seed=start // PART_ROWS).with_columns(users)
    table.write_parquet(folder / "events" / f"{start:010}.parquet", compression="zstd", row_group_size=500_000)
    return {"rows": table.height}


def in_turn(root: Path, rows: int, engines: list[str], runs: int, bucket_rows: int | None) -> Json:
    """All engines on the same events, `runs` times."""
    source, warm = events(root, rows), events(root, WARM_ROWS)
    record: Json = {"rows": rows, **{engine: [] for engine in engines}}
    for _ in range(runs):
        for engine in engines:
            options = ["--bucket-rows", bucket_rows] if bucket_rows else []
            run = child(
                root, 0, "--measure", engine, source, warm, root / f"root-{rows}-{engine.replace(':', '-')}", *options
            )
            record[engine].append(run)
            print(json.dumps({"rows": rows, **run}), flush=True)
    last = {engine: runs[-1] for engine, runs in record.items() if engine in engines and "folder" in runs[-1]}
    first, *rest = engines
    for other in rest:
        if first in last and other in last:
            record.setdefault("compared", {})[other] = compare(last[first]["folder"], last[other]["folder"])
    best = {engine: min(run["wall_s"] for run in record[engine] if "wall_s" in run) for engine in last}
    record["times_faster"] = {other: round(best[first] / best[other], 2) for other in best if first in best}
    return record


def _without_spans(runs: list[Json]) -> list[Json]:
    return [{name: value for name, value in run.items() if name != "spans"} for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("rows", help="events, several with commas between")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument(
        "--engines", default="cpu,gpu", help="in turn, the first is compared with; variants as gpu:plain"
    )
    parser.add_argument("--bucket-rows", type=int, help="rows of a bucket; as the engine chooses if left out")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    root = given.root.resolve()
    if given.make:
        print(json.dumps(make(given.make, int(given.rows), root)))
    elif given.measure:
        name, *paths = given.measure
        engine, *variants = name.split(":")
        print(json.dumps(measure(engine, *map(Path, paths), given.bucket_rows, variants)))
    else:
        root.mkdir(parents=True, exist_ok=True)
        engines = given.engines.split(",")
        sizes = [int(size) for size in given.rows.split(",")]
        records = [in_turn(root, size, engines, given.runs, given.bucket_rows) for size in sizes]
        slim = [
            {name: _without_spans(runs) if name in engines else runs for name, runs in record.items()}
            for record in records
        ]
        print(json.dumps(slim))
        if any("error" in run for record in records for engine in engines for run in record[engine]):
            raise SystemExit(1)
        if not all(comparison["same_rows"] for record in records for comparison in record.get("compared", {}).values()):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
