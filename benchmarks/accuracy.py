"""Re-run a table of published accuracy by the ordinary stages, and print published figures against ours.

    python benchmarks/accuracy.py --table beauty                 all seeds of one table, on the terminal
    python benchmarks/accuracy.py --table beauty --seeds 17      some of them
    python benchmarks/accuracy.py --table all --write            all tables, into docs/accuracy.md and benchmarks/accuracy.json
    python benchmarks/accuracy.py --page                         the page alone, anew of what was ever written

A table is a file of benchmarks/accuracy: dataset, folder of $OVERNIGHT_SHARED/data, models (a preset or none, and settings),
seeds, the published figures with their sources, and every difference of protocol. Each seed is one
`overnight evaluate --preset ... --set ...`, with one thread; with --root, what is there already is not done again.

Published tables count a target that no training event holds as a miss. `overnight evaluate` leaves such cases out and counts
them, so figures here are its metrics times cases / (cases + cold and unknown targets).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
sys.path[:0] = [str(PROJECT), str(HERE)]

from accuracy_hours import Windows, run_hours  # noqa: E402

from schemas.errors import InputError, parse  # noqa: E402
from schemas.yaml_keys import load_yaml  # noqa: E402

TABLES, RECORDS, PAGE = HERE / "accuracy", HERE / "accuracy.json", PROJECT / "docs" / "accuracy.md"
SHARED = Path(os.environ.get("OVERNIGHT_SHARED", PROJECT / ".." / "shared")).resolve()
Json = dict[str, Any]

INTRO = """# Accuracy beside published tables

`python benchmarks/accuracy.py --table all --write` renews this page from the files of
[benchmarks/accuracy](../benchmarks/accuracy). Targets that no training event holds count as misses. CPU seconds are those of
training, one thread, on whichever machine ran them. Mean of the seeds shown; with several, the standard deviation between them
after it. What was tried on the way, with and without gain: [modeling/LOG.md](../modeling/LOG.md).
"""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Published(_Frozen):
    """A figure that somebody published."""

    who: str
    source: str = Field(description="Paper, or code whose own log says so.")
    metrics: dict[str, float]


class OurModel(_Frozen):
    """A model of ours: a preset or the defaults, and settings on top."""

    name: str
    preset: str | None = None
    settings: tuple[str, ...] = ()


class Table(_Frozen):
    """One published table and what we set against it."""

    title: str
    dataset: str = Field(description="A known name, or a YAML file from here.")
    folder: str = Field(description="Of $OVERNIGHT_SHARED/data.")
    arguments: tuple[str, ...] = Field((), description="Further ones of `overnight evaluate`, such as --until.")
    protocol: str
    metrics: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    published: tuple[Published, ...] = Field(min_length=1)
    models: tuple[OurModel, ...] = Field(min_length=1)
    differences: tuple[str, ...] = Field(description="Of protocol, between what is published and ours.")
    gap: str = Field("", description="What explains the difference of the figures.")
    windows: Windows | None = Field(None, description="Trained and tested hour by hour, means over the hours.")


class Record(_Frozen):
    """What one seed of one model gave: metrics with cold targets as misses, and what it cost."""

    table: str
    model: str
    seed: int
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    cases: int
    cold: int
    cpu_seconds: float
    steps: int
    commit: str


def main() -> None:
    """The tables asked for, one seed after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.stem for path in TABLES.glob("*.yaml"))
    parser.add_argument("--table", choices=[*known, "all"])
    parser.add_argument("--models", nargs="*", help="names of some of the table's models; all by default")
    parser.add_argument("--seeds", nargs="*", type=int, help="instead of the table's")
    parser.add_argument("--root", type=Path, help="folder of artifacts, kept; one that is removed by default")
    parser.add_argument("--write", action="store_true", help="into docs/accuracy.md and benchmarks/accuracy.json")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    given = parser.parse_args()
    if not (given.table or given.page):
        parser.error("give --table NAME or --page")
    for name in [] if given.page else known if given.table == "all" else [given.table]:
        records = run(name, read_table(name), given.models, given.seeds, given.root)
        print(section(name, read_table(name), records))
        if given.write:
            keep(records)
    if given.page or given.write:
        PAGE.write_text(page(known, read_records()))


def read_table(name: str) -> Table:
    """The file of that name in benchmarks/accuracy."""
    path = TABLES / f"{name}.yaml"
    return parse(Table, load_yaml(path.read_text(), str(path)), str(path))


def run(name: str, table: Table, models: list[str] | None, seeds: list[int] | None, root: Path | None) -> list[Record]:
    """A record for each model and seed; what fails is said and left out."""
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for model in table.models:
            if models and model.name not in models:
                continue
            for seed in seeds or table.seeds:
                print(f"{name}: {model.name}, seed {seed}", file=sys.stderr, flush=True)
                one = evaluate_hours if table.windows else evaluate
                records.append(one(name, table, model, seed, (root or Path(folder)) / name))
    return records


def evaluate(name: str, table: Table, model: OurModel, seed: int, root: Path) -> Record:
    """Train and measure one seed, by the command that people use.

    Raises:
        InputError: when the command fails, with its last words.
    """
    command = [sys.executable, "-m", "flows.cli", "evaluate", "--json", f"--dataset={table.dataset}"]
    command += [f"--source={SHARED / 'data' / table.folder}", f"--root={root}", *table.arguments]
    command += [f"--preset={model.preset}"] if model.preset else []
    for setting in (*model.settings, f"training.seed={seed}", "training.threads=1"):
        command += ["--set", setting]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"{' '.join(command[1:])} failed: {done.stderr.strip()[-1000:] or done.stdout.strip()[-1000:]}"
        )
    measured = json.loads(done.stdout.splitlines()[-1])
    manifest = json.loads((Path(measured["folder"]) / "manifest.json").read_text())
    parent = next(parent for parent in manifest["parents"] if parent.startswith("models/"))
    training = json.loads((root / parent / "manifest.json").read_text())["facts"]
    share, cold = share_of_cases(measured)
    counted = {
        who: {metric: round(values[metric] * share, 6) for metric in table.metrics if values.get(metric) is not None}
        for who, values in measured["metrics"].items()
    }
    return Record(
        table=name,
        model=model.name,
        seed=seed,
        metrics=counted.pop(measured["model"]),
        baselines=counted,
        cases=measured["cases"],
        cold=cold,
        cpu_seconds=training["cpu_seconds"],
        steps=training["steps"],
        commit=commit(),
    )


def evaluate_hours(name: str, table: Table, model: OurModel, seed: int, root: Path) -> Record:
    """Train and measure one seed hour by hour, by the stages that a night consists of."""
    from flows.settings.layers import read_changes
    from flows.settings.settings import Data

    assert table.windows
    changes, settings = read_changes([*model.settings, f"training.seed={seed}", "training.threads=1"])
    source = SHARED / "data" / table.folder
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    data = Data(dataset=table.dataset, source=str(source), root=root, changes=changes)
    made = run_hours(data, table.windows, model.preset, settings, table.metrics, say)
    ours, *rest = made["metrics"]  # the model is first
    return Record(
        table=name,
        model=model.name,
        seed=seed,
        metrics=made["metrics"][ours],
        baselines={who: made["metrics"][who] for who in rest},
        cases=made["cases"],
        cold=made["cold"],
        cpu_seconds=made["cpu_seconds"],
        steps=made["steps"],
        commit=commit(),
    )


def share_of_cases(measured: Json) -> tuple[float, int]:
    """What a metric over the cases that can be met is worth over all, where the rest are misses; and how many those are."""
    cold = measured.get("cold_targets", 0) + measured.get("unknown_targets", 0)
    return measured["cases"] / max(measured["cases"] + cold, 1), cold


def commit() -> str:
    """The commit that is checked out, with a + where files differ from it; empty without git."""
    try:
        say = lambda *words: subprocess.run(  # noqa: E731
            ["git", *words], cwd=PROJECT, capture_output=True, text=True, check=True
        ).stdout.strip()
        return say("rev-parse", "--short", "HEAD") + ("+" if say("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def read_records() -> list[Record]:
    """What was ever written."""
    lines = RECORDS.read_text().splitlines() if RECORDS.is_file() else []
    return [Record.model_validate_json(line) for line in lines]


def keep(records: Iterable[Record]) -> None:
    """Put new records into the place of older ones of the same table, model and seed."""
    latest = {(record.table, record.model, record.seed): record for record in [*read_records(), *records]}
    RECORDS.write_text("".join(latest[key].model_dump_json() + "\n" for key in sorted(latest)))


def page(names: Iterable[str], records: list[Record]) -> str:
    """The whole page as Markdown."""
    parts = [section(name, read_table(name), [r for r in records if r.table == name]) for name in names]
    return "\n".join([INTRO, *parts])


def section(name: str, table: Table, records: list[Record]) -> str:
    """One table: published, ours, baselines on the same cases, and what differs."""
    lines = [f"## {table.title}", "", table.protocol, ""]
    lines += [
        f"| what | {' | '.join(table.metrics)} | seeds | CPU s | source |",
        "|---" * (len(table.metrics) + 4) + "|",
    ]
    for row in table.published:
        cells = [_number(row.metrics.get(metric)) for metric in table.metrics]
        lines.append(f"| published: {row.who} | {' | '.join(cells)} | | | {row.source} |")
    for model in table.models:
        lines.append(_our_row(model, table, [record for record in records if record.model == model.name]))
    lines += _baseline_rows(table, records)
    lines.append("")
    if records:
        lines += [f"{records[0].cases:,} cases, and {records[0].cold:,} more whose target no training event holds.", ""]
    command = f"python benchmarks/accuracy.py --table {name}"
    for model in table.models:
        preset = f"preset {model.preset}" if model.preset else "no preset"
        settings = ", ".join(f"`{setting}`" for setting in model.settings) or "no settings of the model"
        lines.append(f"- {model.name}: {preset}, {settings} (`{command} --models '{model.name}'`).")
    lines += [f"- Differs: {difference}" for difference in table.differences]
    lines += [f"- What explains the gap: {table.gap}"] if table.gap else []
    return "\n".join([*lines, ""])


def _our_row(model: OurModel, table: Table, records: list[Record]) -> str:
    if not records:
        return f"| ours: {model.name} | {' | '.join('not run' for _ in table.metrics)} | | | |"
    cells = []
    for metric in table.metrics:
        values = [record.metrics[metric] for record in records]
        cells.append(f"**{mean(values):.4f}**" + (f" ± {stdev(values):.4f}" if len(values) > 1 else ""))
    seeds = ", ".join(str(record.seed) for record in records)
    seconds = mean(record.cpu_seconds for record in records)
    commits = ", ".join(sorted({record.commit for record in records}))
    return f"| ours: {model.name} | {' | '.join(cells)} | {seeds} | {seconds:,.0f} | {commits} |"


def _baseline_rows(table: Table, records: list[Record]) -> list[str]:
    baselines = records[0].baselines if records else {}
    return [
        f"| baseline: {who} | {' | '.join(_number(values.get(metric)) for metric in table.metrics)} | | | |"
        for who, values in baselines.items()
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
