"""One thing the ETL benchmark needs done, in a process of its own; the last line printed is JSON.

    python benchmarks/etl_run.py events ROWS FOLDER        events of the peers' generator, and the same without repeats
    python benchmarks/etl_run.py days DAYS PER_DAY FOLDER  equal days, a file each
    python benchmarks/etl_run.py prepare SOURCE ROOT --until DAY [--job users] [--engine nvtabular] [--workers 2]
    python benchmarks/etl_run.py same OURS THEIRS          whether both hold the same sessions

CPU seconds are those of all threads and of workers that have ended. Imports are told apart, as the peers do.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

import preprocessing
import schemas
from preprocessing.engines import engine_of
from preprocessing.execution.workers import workers_of
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, code_version
from schemas.columns import ITEM_ID, LENGTH, START, TIMESTAMP, USER_ID
from schemas.dataset import Dataset

SHARED = Path(os.environ.get("OVERNIGHT_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()
PART_ROWS = 10_000_000  # events of a file: more are several files, each with users of its own
MIDNIGHT = 1_600_041_600  # 2020-09-14, where equal days begin
EVENTS, DISTINCT, ABOUT = "events", "distinct", "about.json"
COLUMNS = (USER_ID, ITEM_ID, TIMESTAMP, "category", "brand", "price")
IDS = (ITEM_ID, "category", "brand")
PRICE = {"price": {"encode": ["log1p", "standardize"]}}
JOBS: dict[str, dict[str, Any]] = {
    # What the reference written by hand does: sessions of 30 minutes, no repeats, the last 50 events, ids seen twice.
    "sessions": {
        "steps": ["drop_repeats"],
        "features": {
            **{name: {"encode": "category", "min_count": 2} for name in IDS},
            **PRICE,
            "hour": {"column": TIMESTAMP, "encode": "hour"},
            "weekday": {"column": TIMESTAMP, "encode": "weekday"},
            "age": {"column": TIMESTAMP, "encode": ["item_age", "log1p"]},
        },
    },
    # What the NVTabular scripts do: the last 20 events of every user with at least two.
    "users": {
        "split": "leave_one_out",
        "sessions": {"rule": "history", "max_length": 20},
        "features": {**{name: {"encode": "category", "min_count": 1} for name in IDS}, **PRICE},
    },
}


def generator() -> Any:
    """The peers' generator of events."""
    sys.path.insert(0, str(SHARED / "peers"))
    return importlib.import_module("gen_events")


def make_events(rows: int, folder: Path) -> dict[str, Any]:
    """About `rows` events, and those without repeats of user, item and time: NVTabular's jobs keep repeats, Overnight never."""
    make, sizes = generator().make_events, [min(PART_ROWS, rows - done) for done in range(0, rows, PART_ROWS)]
    for name in (EVENTS, DISTINCT):
        (folder / name).mkdir(parents=True)
    users, last = 0, []
    for number, size in enumerate(sizes):
        events = make(size, seed=number).with_columns(pl.col(USER_ID) + users)
        users += size // 10
        last.append(events[TIMESTAMP].max().date())
        distinct = events.unique([USER_ID, ITEM_ID, TIMESTAMP], keep="first", maintain_order=True)
        for name, table in ((EVENTS, events), (DISTINCT, distinct)):
            table.write_parquet(folder / name / f"{number}.parquet", compression="zstd", row_group_size=500_000)
    return {"rows": rows, "last": str(max(last))}


def make_days(days: int, per_day: int, folder: Path) -> dict[str, Any]:
    """Files `YYYY-MM-DD.parquet` of about as many events each."""
    generate = generator()
    generate.START, generate.SPAN = MIDNIGHT, days * 86_400
    events = generate.make_events(days * per_day).with_columns(pl.col(TIMESTAMP).dt.date().alias("day"))
    folder.mkdir(parents=True)
    names = []
    for (day,), part in events.partition_by("day", as_dict=True, include_key=False).items():
        part.write_parquet(folder / f"{day}.parquet", compression="zstd")
        names.append(str(day))
    return {"days": sorted(names)[:days]}  # a last session may run past the end


def dataset_of(job: str, source: Path) -> Dataset:
    """The job on the events in a folder."""
    events = {"path": source.name, "columns": {name: name for name in COLUMNS}}
    return Dataset.model_validate({"name": "benchmark", "events": events, **JOBS[job]}).at(source.parent)


def measure(source: Path, root: Path, job: str, until: date | None, engine: Any, workers: int | None) -> dict[str, Any]:
    """Prepare once."""
    engine_of(engine)  # NVTabular is imported here
    dataset, imported = dataset_of(job, source), time.process_time()
    with ExitStack() as stack:
        team = stack.enter_context(workers_of(engine, workers))
        began, spent = time.perf_counter(), time.process_time()
        manifest = prepare(
            Artifacts(root), dataset, until=until, engine=engine, workers=team, progress=lambda line: print(line)
        )
        wall, cpu = time.perf_counter() - began, time.process_time() - spent
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "lists": manifest.facts["sessions"],
        "list_events": manifest.facts["events"],
        "cpu_s": round(cpu + ended.ru_utime + ended.ru_stime, 3),
        "wall_s": round(wall, 3),
        "import_cpu_s": round(imported, 3),
        "peak_rss_mb": max(own.ru_maxrss, ended.ru_maxrss) // 1024,
        "seconds": manifest.facts["seconds"],
        "code": code_version(*map(Path, [*preprocessing.__path__, *schemas.__path__])),
        "folder": str(manifest.folder),
    }


def compare(ours: Path, theirs: Path) -> dict[str, Any]:
    """Whether as many sessions of as many events belong to the same users, and begin at the same times if those are there."""
    tables = []
    for path in (ours / "sessions", theirs):
        sessions = pl.scan_parquet(f"{path}/**/*.parquet" if path.is_dir() else path)
        schema = sessions.collect_schema()
        length = next(pl.col(name).list.len() for name, dtype in schema.items() if isinstance(dtype, pl.List))
        columns = {USER_ID: pl.col(USER_ID), LENGTH: length.cast(pl.Int64)}
        if START in schema:
            columns[START] = pl.col(START).dt.replace_time_zone(None)
        tables.append(sessions.select(**columns))
    keys = tables[1].collect_schema().names()
    mine, other = (table.select(keys).sort(keys).collect() for table in tables)
    counts = [{"lists": table.height, "list_events": int(table[LENGTH].sum())} for table in (mine, other)]
    return {"same": mine.equals(other), "ours": counts[0], "theirs": counts[1], "compared": keys}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, numbers in (("events", ["rows"]), ("days", ["days", "per_day"])):
        task = tasks.add_parser(name)
        for number in numbers:
            task.add_argument(number, type=int)
        task.add_argument("folder", type=Path)
    task = tasks.add_parser("prepare")
    task.add_argument("source", type=Path)
    task.add_argument("root", type=Path)
    task.add_argument("--job", default="sessions", choices=list(JOBS))
    task.add_argument("--until", type=date.fromisoformat)
    task.add_argument("--engine", default="cpu")
    task.add_argument("--workers", type=int)
    task = tasks.add_parser("same")
    task.add_argument("ours", type=Path)
    task.add_argument("theirs", type=Path)
    given = vars(parser.parse_args())
    run: dict[str, Callable[..., dict[str, Any]]]
    run = {"events": make_events, "days": make_days, "prepare": measure, "same": compare}
    told = run[given.pop("task")](**given)
    if folder := given.get("folder"):
        (folder / ABOUT).write_text(json.dumps(told))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
