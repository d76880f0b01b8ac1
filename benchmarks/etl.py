"""Measure the ETL beside its peers, as it grows, and night by night.

    python benchmarks/etl.py --against polars_reference --rows 1000000 5000000   both in turn, medians, their ratio
    python benchmarks/etl.py --growth          one to fifty million events: CPU seconds and memory
    python benchmarks/etl.py --nightly         one more day after 2, 100 and 1,000 days
    python benchmarks/etl.py --engines         NVTabular and two workers beside Polars in one process
    python benchmarks/etl.py --all --write     everything, into benchmarks/etl.md and benchmarks/etl.json

Every run is a fresh process on the same files. CPU seconds are compared, which a machine shared with others hardly changes;
imports are left out on both sides. Peers and their generator of events are found in $OVERNIGHT_SHARED/peers; what is not
there is skipped with its reason. Data and environments of peers live in .peers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# Only the standard library: a child's peak memory begins at that of the process that started it.
from etl_page import commit, keep, tables

from preprocessing.execution.memory import keep_memory

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
PEERS = Path(os.environ.get("OVERNIGHT_SHARED", PROJECT / ".." / "shared")).resolve() / "peers"
ROOM = PROJECT / ".peers"
DATA, SCRATCH = ROOM / "data" / "etl", ROOM / "scratch"
MILLION = 1_000_000
GROWTH = (MILLION, 5 * MILLION, 20 * MILLION, 50 * MILLION)
HISTORIES, PER_DAY = (2, 100, 1000), 5_000  # two days are the fewest: one to train on, one to test on
ENGINES: dict[str, list[str]] = {"cpu": [], "nvtabular": ["--engine", "nvtabular"], "two workers": ["--workers", "2"]}
MEASURES = ("cpu_s", "wall_s", "peak_rss_mb", "import_cpu_s")
Json = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A script of the peers, and which of our jobs is the same."""

    job: str
    """A key of etl_run.JOBS."""
    goal: str
    rows: tuple[int, ...] = (MILLION, 5 * MILLION, 20 * MILLION)
    environment: str = ""
    """Below .peers; empty: the project's own."""
    comparable: bool = True
    """Whether it writes sessions that must be ours."""
    writes_folder: bool = True
    """And not one file."""

    @property
    def python(self) -> Path:
        """What runs it."""
        return ROOM / self.environment / "bin" / "python" if self.environment else Path(sys.executable)


AGAINST = {
    "polars_reference": Peer("sessions", "at most 1.2 times its CPU"),
    "limit": Peer("sessions", "none: what reading, sorting and writing cost", comparable=False, writes_folder=False),
    "nvt_flat": Peer("users", "none", (MILLION, 5 * MILLION), "nvtabular", writes_folder=False),
    "nvt_t4rec_style": Peer("users", "at most 1/40 of its CPU", (MILLION,), "nvtabular"),
}


class UnmeasuredError(Exception):
    """What is needed is not there, or did not stay as it was."""


def child(command: list[str | Path], environment: dict[str, str] | None = None) -> Json:
    """The JSON a process prints last."""
    words = [str(part) for part in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def ours(task: str, *arguments: object) -> Json:
    """A task of etl_run.py, with memory as `overnight` sets it before Polars is imported."""
    environment = dict(os.environ)
    keep_memory(environment)
    return child([sys.executable, HERE / "etl_run.py", task, *map(str, arguments)], environment)


def data(task: str, name: str, *sizes: int) -> tuple[Path, Json]:
    """A folder of generated events, made once, and what is known of it."""
    if not (PEERS / "gen_events.py").is_file():
        raise UnmeasuredError(f"{PEERS} holds no gen_events.py; set OVERNIGHT_SHARED to the folder that holds peers")
    folder = DATA / name
    if not (folder / "about.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        ours(task, *sizes, folder)
    return folder, json.loads((folder / "about.json").read_text())


def events(rows: int) -> tuple[Path, Json]:
    return data("events", str(rows), rows)


def prepare(source: Path, until: str | None, *options: str, root: Path | None = None) -> Json:
    """Prepare once, from nothing unless `root` is given."""
    if root is None:
        root = SCRATCH / "ours"
        shutil.rmtree(root, ignore_errors=True)
    return ours("prepare", source, root, *(["--until", until] if until else []), *options)


def check_code(runs: list[Json]) -> None:
    """Runs of different code are not runs of one thing, and a night of new code does all days again."""
    if len({run["code"] for run in runs}) > 1:
        raise UnmeasuredError("the code of the ETL changed between the runs of a row; run this again")


def medians(runs: list[Json]) -> Json:
    """Of each measure the median, and the smallest and largest CPU seconds."""
    spent = [run["cpu_s"] for run in runs]
    middle = {name: round(median(run[name] for run in runs), 3) for name in MEASURES}
    return middle | {"cpu_range": [min(spent), max(spent)]}


def check_same(name: str, folder: str, theirs: Path) -> Json:
    """What both wrote.

    Raises:
        SystemExit: when sessions differ: then their costs are not those of the same work.
    """
    compared = ours("same", folder, theirs)
    if not compared["same"]:
        raise SystemExit(
            f"{name} and Overnight made different sessions, so they cannot be compared: {json.dumps(compared)}"
        )
    return dict(compared["ours"])


def against(name: str, rows: list[int] | None, repeat: int) -> Iterator[Json]:
    """Ours and a peer's in turn."""
    peer, script = AGAINST[name], PEERS / f"{name}.py"
    if not script.is_file():
        raise UnmeasuredError(f"{script} is not there; set OVERNIGHT_SHARED to the folder that holds peers")
    if not peer.python.is_file():
        raise UnmeasuredError(f"{peer.python} is not there: bash {PEERS / 'setup.sh'} {peer.environment}")
    for size in rows or peer.rows:
        folder, about = events(size)
        source = folder / ("distinct" if peer.job == "users" else "events")
        until = about["last"] if peer.job == "sessions" else None
        out = SCRATCH / (name if peer.writes_folder else f"{name}.parquet")
        # Read as a file where there is one, which is all some peers take.
        files = sorted(source.iterdir())
        command: list[str | Path] = [peer.python, script, files[0] if len(files) == 1 else source, out]
        runs: dict[str, list[Json]] = {"ours": [], "theirs": []}
        for number in range(repeat):
            # Who comes second finds files in memory: each does in turn.
            for who in ("ours", "theirs")[:: -1 if number % 2 else 1]:
                run = prepare(source, until, "--job", peer.job) if who == "ours" else child(command)
                runs[who].append(run)
        check_code(runs["ours"])
        wrote = check_same(name, runs["ours"][-1]["folder"], out) if peer.comparable else {}
        mine, theirs = (medians(runs[who]) for who in ("ours", "theirs"))
        ratio = round(mine["cpu_s"] / theirs["cpu_s"], 3)
        seconds = runs["ours"][-1]["seconds"]
        yield {
            "table": "against", "peer": name, "rows": size, "job": peer.job, "goal": peer.goal, "repeat": repeat, **wrote,
            "ours": mine, "theirs": theirs, "ratio": ratio, "seconds": seconds,
        }  # fmt: skip


def growth(rows: list[int] | None, repeat: int) -> Iterator[Json]:
    """The whole job on more and more events, in one process."""
    for size in rows or GROWTH:
        folder, about = events(size)
        runs = [prepare(folder / "events", about["last"]) for _ in range(repeat)]
        check_code(runs)
        last = runs[-1]
        wrote = {name: last[name] for name in ("lists", "list_events", "seconds")}
        yield {"table": "growth", "rows": size, "repeat": repeat, "ours": medians(runs), **wrote}


def nightly(histories: list[int] | None, repeat: int) -> Iterator[Json]:
    """The same new day after histories of different lengths, and then once more, with nothing left to do."""
    longest = max(histories or HISTORIES)
    folder, about = data("days", f"{longest + 1}-days", longest + 1, PER_DAY)
    for history in histories or HISTORIES:
        *before, newest = about["days"][-history - 1 :]
        source, before_root, root = (SCRATCH / name for name in ("days", "before", "after"))
        for left in (source, before_root):
            shutil.rmtree(left, ignore_errors=True)
        source.mkdir(parents=True)
        for day in before:
            os.link(folder / f"{day}.parquet", source / f"{day}.parquet")
        first = prepare(source, before[-1], root=before_root)
        os.link(folder / f"{newest}.parquet", source / f"{newest}.parquet")
        nights, idle = [], []
        for _ in range(repeat):
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(before_root, root)
            nights.append(prepare(source, newest, root=root))
            idle.append(prepare(source, newest, root=root))
        check_code([first, *nights, *idle])
        yield {
            "table": "nightly", "days": history, "per_day": PER_DAY, "repeat": repeat, "seconds": nights[-1]["seconds"],
            "first": {name: first[name] for name in MEASURES}, "night": medians(nights), "idle": medians(idle),
        }  # fmt: skip


def engines(rows: list[int] | None, repeat: int) -> Iterator[Json]:
    """The same job by other means, with the same sessions."""
    for size in rows or (MILLION, 5 * MILLION):
        folder, about = events(size)
        kept = SCRATCH / "of polars"
        for name, options in ENGINES.items():
            runs = [prepare(folder / "events", about["last"], *options) for _ in range(repeat)]
            check_code(runs)
            sessions = Path(runs[-1]["folder"]) / "sessions"
            if name == "cpu":
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(sessions, kept)
            else:
                check_same(name, runs[-1]["folder"], kept)
            yield {"table": "engines", "engine": name, "rows": size, "repeat": repeat, "ours": medians(runs)}


def figures(
    measured: Sequence[Callable[[int], Iterator[Json]]], repeat: int, as_json: bool, write: bool
) -> Iterator[Json]:
    """All rows, each told and kept as soon as it is there."""
    for mode in measured:
        try:
            for row in mode(repeat):
                record = row | {"commit": commit(PROJECT), "load": round(os.getloadavg()[0], 1)}
                if write:
                    keep([record], HERE)
                if as_json:
                    print(json.dumps(record), flush=True)
                yield record
        except UnmeasuredError as reason:
            print(f"skipped: {reason}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--against", nargs="+", choices=list(AGAINST), default=[], metavar="PEER", help=", ".join(AGAINST)
    )
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--nightly", action="store_true")
    parser.add_argument("--engines", action="store_true")
    parser.add_argument("--all", action="store_true", help="all of these")
    parser.add_argument("--rows", type=int, nargs="+", help="events; each table has its own default")
    parser.add_argument("--days", type=int, nargs="+", help=f"days of history of --nightly; {HISTORIES}")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the median is taken")
    parser.add_argument("--json", action="store_true", help="one line of JSON a row instead of a table")
    parser.add_argument("--write", action="store_true", help="keep the figures in etl.md and etl.json")
    given = parser.parse_args()
    measured: list[Callable[[int], Iterator[Json]]]
    measured = [partial(against, name, given.rows) for name in (AGAINST if given.all else given.against)]
    modes = {
        "growth": partial(growth, given.rows),
        "nightly": partial(nightly, given.days),
        "engines": partial(engines, given.rows),
    }
    measured += [mode for name, mode in modes.items() if given.all or getattr(given, name)]
    if not measured:
        parser.error("say what to measure: --against PEER, --growth, --nightly, --engines or --all")
    records = list(figures(measured, given.repeat, given.json, given.write))
    if records and not given.json:
        print(tables(records))
    shutil.rmtree(SCRATCH, ignore_errors=True)


if __name__ == "__main__":
    main()
