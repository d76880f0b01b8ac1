"""The page of the ETL's figures, etl.md, made of the lines of etl.json. Standard library only, like etl.py."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

Json = dict[str, Any]
INTRODUCTION = """# The ETL, measured

`python benchmarks/etl.py --all --write` renews this page; `etl.json` beside it holds each row with more detail.

Every run is a process of its own on the same files, Overnight's and the peer's in turn; figures are medians. CPU seconds
are of all threads, imports left out. Memory is the largest a process became. Events are those of a made-up shop with
50,000 items, a tenth as many users as events, sessions of five events on average, ten days, 1 % of repeated rows, 0.5 %
without an item. Overnight checks and accounts for every row, gives ids and statistics by the day so that no day knows a
later one, writes a profile of every day and checksums of every file; the peers do none of this.
"""
ABOUT = {
    "against": (
        "## Beside peers",
        "Both did the same work: the same sessions of the same users, else the benchmark fails. `polars_reference` is the "
        "job written by hand in Polars. Against NVTabular, Overnight does NVTabular's job: the last 20 events of each user, "
        "on events without repeats. `limit` makes no sessions: it reads, sorts and writes.",
    ),
    "growth": ("## As events grow", "The job of `polars_reference`, in one process."),
    "nightly": (
        "## One more day",
        "The same new day after histories of different length; then once more, when there is nothing left to do.",
    ),
    "engines": (
        "## By other means",
        "The same job, the same sessions. Workers' CPU has their start and imports in it.",
    ),
}


def keep(records: list[Json], folder: Path) -> None:
    """Put new figures into the place of older ones of the same kind, and write the page anew."""
    stored = folder / "etl.json"
    old = [json.loads(line) for line in stored.read_text().splitlines()] if stored.is_file() else []
    kept = {_key(record): record for record in [*old, *records]}
    order = sorted(kept.values(), key=_key)
    stored.write_text("".join(json.dumps(record) + "\n" for record in order))
    commits = ", ".join(dict.fromkeys(record["commit"] for record in order))
    measured = f"Measured on {machine()}, at commit {commits}.\n"
    (folder / "etl.md").write_text("\n".join([INTRODUCTION, measured, tables(order)]))


def tables(records: list[Json]) -> str:
    """All tables of these figures, as Markdown."""
    made = {"against": _against, "growth": _growth, "nightly": _nightly, "engines": _engines}
    parts = []
    for name, make in made.items():
        if rows := [record for record in records if record["table"] == name]:
            parts.append("\n\n".join([*ABOUT[name], make(rows)]))
    return "\n\n".join(parts) + "\n"


def machine() -> str:
    """What figures depend on, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = f"Python {platform.python_version()}, Polars {version('polars')}"
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB of memory, {libraries}"


def commit(project: Path) -> str:
    """The commit measured, with a plus where the ETL's files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--short", "preprocessing", "schemas")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def exponent(sizes: list[float], costs: list[float]) -> float:
    """The power of size that cost grows with: the slope of a line through their logarithms, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def _against(records: list[Json]) -> str:
    heads = ["events", "peer", "CPU s", "wall s", "MB", "its CPU s", "wall s", "MB", "ratio", "goal", "runs"]
    rows = []
    for record in records:
        ratio = record["ratio"]
        told = f"{ratio:.2f}" if ratio > 0.1 else f"1/{1 / ratio:.0f}"
        both = [*_cost(record["ours"]), *_cost(record["theirs"])]
        rows.append([_events(record["rows"]), record["peer"], *both, told, record["goal"], str(record["repeat"])])
    imports = records[-1]["ours"]["import_cpu_s"]
    return f"{_table(heads, rows)}\n\nImports, left out above, cost Overnight {imports:.1f} CPU s."


def _growth(records: list[Json]) -> str:
    heads, rows = ["events", "CPU s", "wall s", "MB", "CPU s a million", "runs"], []
    for record in records:
        each = record["ours"]["cpu_s"] / record["rows"] * 1e6
        rows.append([_events(record["rows"]), *_cost(record["ours"]), f"{each:.2f}", str(record["repeat"])])
    table = _table(heads, rows)
    if len(records) < 2:
        return table
    power = exponent([record["rows"] for record in records], [record["ours"]["cpu_s"] for record in records])
    goals = "the goals are at most 1.1, and 20 million under 2,000 MB"
    return f"{table}\n\nCPU seconds grow with the power {power:.2f} of events; {goals}."


def _nightly(records: list[Json]) -> str:
    rows = [
        [f"{record['days']}", f"{record['per_day']:,}", *_cost(record["night"]), *_cost(record["idle"])[:2]]
        for record in records
    ]
    table = _table(["days before", "events a day", "CPU s", "wall s", "MB", "nothing to do: CPU s", "wall s"], rows)
    ratio = records[-1]["night"]["cpu_s"] / records[0]["night"]["cpu_s"]
    few, many = records[0]["days"], records[-1]["days"]
    each = (records[-1]["night"]["cpu_s"] - records[0]["night"]["cpu_s"]) / max(many - few, 1) * 1_000
    sentence = f"A day after {many} costs {ratio:.2f} times the CPU of a day after {few}; the goal is 1."
    return f"{table}\n\n{sentence} Each day of history adds {each:.1f} ms."


def _engines(records: list[Json]) -> str:
    rows = [
        [_events(record["rows"]), record["engine"], *_cost(record["ours"]), str(record["repeat"])] for record in records
    ]
    return _table(["events", "engine", "CPU s", "wall s", "MB", "runs"], rows)


def _cost(one: Json) -> list[str]:
    return [f"{one['cpu_s']:.2f}", f"{one['wall_s']:.2f}", f"{one['peak_rss_mb']:,.0f}"]


def _events(rows: int) -> str:
    return f"{rows / 1e6:g}M"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _key(record: Json) -> tuple[str, ...]:
    """What tells rows apart, in the order of the page."""
    names = ("table", "peer", "rows", "days", "engine")
    return tuple(str(record.get(name, "")).zfill(12) for name in names)
