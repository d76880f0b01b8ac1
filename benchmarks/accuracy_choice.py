"""Which runs of a grid validate best, their settings together, and the page of all. See benchmarks/accuracy_grid.py."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

from accuracy_run import Run

COMBINED = "combined"
LEAST_GAIN = 0.01  # of the metric, relative: less is what chance gives
Json = dict[str, Any]
TableOf = Callable[[str], str]


def by_run(results: list[Json]) -> dict[tuple[str, str], list[Json]]:
    """(data, name) -> the results of its seeds, without those that failed."""
    made: dict[tuple[str, str], list[Json]] = {}
    for result in results:
        if "error" not in result:
            made.setdefault((result["data"], result["name"]), []).append(result)
    return made


def validated(results: list[Json]) -> float:
    """The mean over seeds of the first metric on validation cases."""
    return mean(next(iter(result["validation"].values())) for result in results)


def best_of_each(results: list[Json], table_of: TableOf) -> list[tuple[str, str]]:
    """(data, name) of the best validated run of each table."""
    best: dict[str, tuple[float, tuple[str, str]]] = {}
    for key, each in by_run(results).items():
        table, value = table_of(key[0]), validated(each)
        if table not in best or value > best[table][0]:
            best[table] = value, key
    return [key for _, key in best.values()]


def combine(base: Run, results: list[Json]) -> Run | None:
    """The base with every setting of the runs on the same sessions that validate better than it does; of several values of a
    setting the best one's. None where no two settings do, so that there is nothing to combine.

    A run of another body or preset has settings of its own, and is left out.
    """
    runs = by_run(results)
    if (base.data, base.name) not in runs:
        return None
    least = validated(runs[base.data, base.name]) * (1 + LEAST_GAIN)
    before = dict(setting.split("=", 1) for setting in base.settings)
    added: dict[str, str] = {}
    better = {key: each for key, each in runs.items() if key[0] == base.data and validated(each) >= least}
    for each in sorted(better.values(), key=validated, reverse=True):
        settings = dict(setting.split("=", 1) for setting in each[0]["settings"])
        differs = {name: value for name, value in settings.items() if before.get(name) != value}
        if "body.name" not in differs and each[0]["name"] != COMBINED:
            added = differs | added
    if len(better) < 2 or not added:
        return None
    settings = tuple(f"{name}={value}" for name, value in (before | added).items())
    return base.model_copy(update={"name": COMBINED, "settings": settings})


def page(results: list[Json], table_of: TableOf) -> str:
    """A table of each published table, means over seeds, the best validated settings first."""
    lines: list[str] = []
    runs = by_run(results)
    for table in sorted({table_of(data) for data, _ in runs}):
        ours = {key: each for key, each in runs.items() if table_of(key[0]) == table}
        metrics = list(next(iter(ours.values()))[0]["validation"])
        heads = [f"{which} {metric}" for which in ("validation", "test") for metric in metrics]
        lines += [
            "",
            f"## {table}",
            "",
            _row("run", *heads, "best step of", "s", "seeds"),
            "|---" * (len(heads) + 4) + "|",
        ]
        for (data, name), each in sorted(ours.items(), key=lambda run: -validated(run[1])):
            numbers = [f"{mean(r[which][m] for r in each):.4f}" for which in ("validation", "test") for m in metrics]
            steps = f"{each[0].get('best_step', '')} of {each[0]['steps']}"
            seconds = f"{mean(r['seconds'] for r in each):.0f}"
            lines.append(_row(f"{data}: {name}", *numbers, steps, seconds, ", ".join(str(r["seed"]) for r in each)))
            if name == COMBINED:
                lines.append(_row(" ".join(each[0]["settings"]), *[""] * (len(heads) + 3)))
    failed = [f"- {r['data']} {r['name']} {r['seed']}: {r['error']}" for r in results if "error" in r]
    return "\n".join([*lines, *(["", "Failed:", *failed] if failed else []), ""])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
