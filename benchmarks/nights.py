"""Measure what a night costs as days go by: one more day, and a night with nothing to do, after 3 and after 1,000 days.

    python benchmarks/nights.py                     after 3, 60 and 1,000 days
    python benchmarks/nights.py --days 3 200        other numbers of days
    python benchmarks/nights.py --write             into benchmarks/nights.md

Days are tiny (120 events), so that what every night costs apart from its events shows, and a history of 1,000 days is made in a
quarter of a minute. Every night is a command of its own, `overnight prepare` or `overnight retrain`; the CPU seconds are those
of all its threads and of all processes that it started, imports among them. Histories take turns; figures are medians.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from etl_page import commit, machine

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
SCRATCH = PROJECT / ".peers" / "scratch" / "nights"
NEWEST = date(2024, 6, 1)  # the day of the one more night, after histories of any length
USERS, EVENTS = 30, 4  # a day: people, and events of each
WINDOW = ("--days", "7")
QUICK = ("--set", "training.epochs=1", "--set", "training.threads=1", "--set", "training.tokens_per_step=256")
DATASET = """name: tiny
events:
  path: events
  columns: {user_id: user_id, item_id: item_id, timestamp: timestamp, price: price}
features:
  item_id: {encode: category}
  price: {encode: [log1p, standardize]}
"""
INTRODUCTION = """# Nights, measured

`python benchmarks/nights.py --write` renews this page. Days are tiny, so that what a night costs apart from its events shows.
Every night is a command of its own; CPU seconds are those of its whole process tree, imports and Prefect among them. Histories
take turns; figures are medians.
"""


@dataclass(frozen=True)
class History:
    """A source of so many days, and what was prepared of it."""

    days: int

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return SCRATCH / str(self.days)

    def make(self) -> None:
        """The events, the newest day set aside, and all days before it prepared; and one night whole."""
        events = self.folder / "source" / "events"
        shutil.rmtree(self.folder, ignore_errors=True)
        events.mkdir(parents=True)
        (self.folder / "tiny.yaml").write_text(DATASET)
        for before in range(self.days, -1, -1):
            write_day(NEWEST - timedelta(days=before), events)
        (events / f"{NEWEST}.parquet").rename(self.folder / "newest.parquet")
        self.run("prepare", "root", NEWEST - timedelta(days=1))
        shutil.copytree(self.folder / "root", self.folder / "trained", copy_function=os.link)
        self.run("retrain", "trained", NEWEST - timedelta(days=1), *WINDOW, *QUICK)

    def run(self, command: str, root: str, until: date, *options: str) -> float:
        """CPU seconds of a command."""
        given = [
            "--dataset",
            self.folder / "tiny.yaml",
            "--source",
            self.folder / "source",
            "--root",
            self.folder / root,
        ]
        words = [sys.executable, "-m", "flows.cli", command, *given, "--until", until, *options]
        process = subprocess.Popen(
            [str(word) for word in words], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(said.decode())
        return used.ru_utime + used.ru_stime

    def nights(self, *options: str) -> tuple[float, float]:
        """CPU seconds of one more night, and of the same again, from what was prepared before."""
        newest = self.folder / "source" / "events" / f"{NEWEST}.parquet"
        shutil.rmtree(self.folder / "after", ignore_errors=True)
        # Artifacts never change, and what does is replaced: links do.
        shutil.copytree(self.folder / "root", self.folder / "after", copy_function=os.link)
        os.link(self.folder / "newest.parquet", newest)
        try:
            return self.run("prepare", "after", NEWEST, *options), self.run("prepare", "after", NEWEST, *options)
        finally:
            newest.unlink()


def write_day(day: date, folder: Path) -> None:
    """A file of the events of a day."""
    import polars as pl

    number, start = day.toordinal(), datetime.combine(day, datetime.min.time())
    rows = [
        (
            f"u{(user * 7 + number) % 200}",
            f"i{(user * 3 + place * 5 + number) % 40}",
            start + timedelta(hours=8 + user % 12, minutes=3 * place),
            float(user + place),
        )
        for user in range(USERS)
        for place in range(EVENTS)
    ]
    columns = ["user_id", "item_id", "timestamp", "price"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(folder / f"{day}.parquet")


def measure(histories: list[History], repeat: int) -> dict[str, dict[int, float]]:
    """Medians of CPU seconds by kind of night and length of history."""
    by_kind: dict[str, dict[int, list[float]]] = {}

    def enter(kind: str, history: History, seconds: float) -> None:
        by_kind.setdefault(kind, {}).setdefault(history.days, []).append(seconds)

    for _ in range(repeat):
        for history in histories:
            more, nothing = history.nights(*WINDOW)
            enter("prepare, one more day; a window of 7 days", history, more)
            enter("prepare, nothing to do; a window of 7 days", history, nothing)
            more, nothing = history.nights()
            enter("prepare, one more day; all days", history, more)
            enter("prepare, nothing to do; all days", history, nothing)
            night = history.run("retrain", "trained", NEWEST - timedelta(days=1), *WINDOW, *QUICK)
            enter("retrain, nothing to do; a window of 7 days", history, night)
    return {kind: {days: median(runs) for days, runs in by_days.items()} for kind, by_days in by_kind.items()}


def page(by_kind: dict[str, dict[int, float]], repeat: int) -> Iterator[str]:
    """The figures as Markdown."""
    days = list(next(iter(by_kind.values())))
    first, last = days[0], days[-1]
    yield f"Measured on {machine()}, at commit {commit(PROJECT)}; CPU seconds, medians of {repeat}."
    yield ""
    yield f"| a night after so many days | {' | '.join(f'{number:,}' for number in days)} | {last:,} to {first:,} |"
    yield f"| --- |{' --- |' * (len(days) + 1)}"
    for kind, of_kind in by_kind.items():
        ratio = of_kind[last] / of_kind[first]
        yield f"| {kind} | {' | '.join(f'{of_kind[number]:.2f}' for number in days)} | {ratio:.2f} |"


def main() -> None:
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", nargs="+", type=int, default=[3, 60, 1000])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="into nights.md")
    given = parser.parse_args()
    histories = [History(days) for days in given.days]
    for history in histories:
        history.make()
    text = "\n".join(page(measure(histories, given.repeat), given.repeat))
    print(text)
    if given.write:
        (HERE / "nights.md").write_text(f"{INTRODUCTION}\n{text}\n")


if __name__ == "__main__":
    main()
