"""The page of the losses' figures, losses.md, made of the lines of losses.json. Standard library only, like losses.py."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

Json = dict[str, Any]
INTRODUCTION = """# Losses, measured

`python benchmarks/losses.py --write` renews this page; `losses.json` beside it holds each case with more detail.

Random predictions of width 64 against random item vectors, through the head that trains, negatives drawn and accidental
hits masked. `ms`: forward and backward; `step`: with AdamW's step on the item vectors; `MB`: what the first run adds to the
process at its peak. Medians; every case a process of its own. 256 negatives for each prediction (group 1, what most
recommenders do), for 32 predictions, or for the whole batch. Sparse: gradients hold only the rows read, and only those
move. `plain_softmax` is torch's cross_entropy on all scores at once, full_softmax the same in chunks.
"""
DEVICES = {
    "cpu": "## {} predictions on a CPU\n\nCPU time of one thread.",
    "cuda": "## {} predictions on a GPU\n\nbfloat16, wall time, memory as torch counts it.",
}
NO_GPU = "## On a GPU\n\nNot measured: there was none. The same command measures 65,536 predictions in bfloat16 where there is."
TRAINING = """## Whole steps of training

SASRec, width 64, two layers, sampled softmax with 256 negatives per 32 predictions, sessions of 20 events, the optimizer's
step included; thousand events a second. `MB` holds the optimizer's moments too."""


def keep(records: list[Json], folder: Path) -> None:
    """Put new figures into the place of older ones of the same case, and write the page anew."""
    stored = folder / "losses.json"
    old = [json.loads(line) for line in stored.read_text().splitlines()] if stored.is_file() else []
    order = sorted({_key(record): record for record in [*old, *records]}.values(), key=_key)
    stored.write_text("".join(json.dumps(record) + "\n" for record in order))
    machines = dict.fromkeys(f"{record['processor']} (torch {record['versions']['torch']})" for record in order)
    loads = [record["load"] for record in order]
    measured = (
        f"Measured on {', '.join(machines)}, Python {order[0]['versions']['python']}, while others worked there too (load "
        f"{min(loads)} to {max(loads)}): CPU time then varies, so do not read much into differences below a third.\n"
    )
    (folder / "losses.md").write_text("\n".join([INTRODUCTION, measured, tables(order)]))


def tables(records: list[Json]) -> str:
    """All tables of these figures, as Markdown."""
    parts = []
    for device, about in DEVICES.items():
        rows = [record for record in records if record["device"] == device]
        if losses := [record for record in rows if record["table"] == "losses"]:
            parts += [about.format(f"{losses[0]['predictions']:,}"), _losses(losses)]
        if training := [record for record in rows if record["table"] == "training"]:
            parts += [TRAINING, _training(training)]
    if not any(record["device"] == "cuda" for record in records):
        parts.append(NO_GPU)
    return "\n\n".join(parts) + "\n"


def processor() -> str:
    """The CPU's name."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _losses(records: list[Json]) -> str:
    sizes = sorted({record["items"] for record in records})
    heads = ["loss", "group", "gradient"]
    heads += [f"{_short(items)}: {what}" for items in sizes for what in ("ms", "step", "MB")]
    by_name_and_items = {(_named(record), record["items"]): record for record in records}
    rows = []
    for named in sorted({one for one, _ in by_name_and_items}, key=_by_kind):
        row = list(named)
        for items in sizes:
            record = by_name_and_items.get((named, items))
            row += _figures(record) if record else ["-"] * 3
        rows.append(row)
    return f"{_table(heads, rows)}\n\nA dash: all scores at once would take more than 4 GB."


def _training(records: list[Json]) -> str:
    heads, rows = ["items", "all vectors", "MB", "rows read", "MB", "ratio"], []
    for items in sorted({record["items"] for record in records}):
        both = [record for record in records if record["items"] == items]
        dense, sparse = (next((one for one in both if one["sparse"] is flag), None) for flag in (False, True))
        if not dense or not sparse:
            continue
        rates = [one["tokens_per_second"] / 1000 for one in (dense, sparse)]
        memory = [f"{one['extra_mb']:,}" for one in (dense, sparse)]
        rows.append(
            [_short(items), f"{rates[0]:.1f}", memory[0], f"{rates[1]:.1f}", memory[1], f"{rates[1] / rates[0]:.2f}"]
        )
    return _table(heads, rows)


def _figures(record: Json) -> list[str]:
    return [_time(record["ms"]), _time(record["step_ms"]), f"{record['extra_mb']:,}"]


def _time(milliseconds: float) -> str:
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.1f}"


def _named(record: Json) -> tuple[str, str, str]:
    if "softmax" in record["loss"] and record["loss"] != "sampled_softmax":
        return record["loss"], "", "dense"
    group = str(record["group"]) if record["group"] else "batch"
    return record["loss"], group, "sparse" if record["sparse"] else "dense"


def _by_kind(named: tuple[str, str, str]) -> tuple[bool, bool, str, bool, tuple[str, str, str]]:
    """Full softmax first, then sampled softmax from one a group to all."""
    loss, group, _ = named
    return loss != "full_softmax", bool(group), "" if loss == "sampled_softmax" else loss, group == "batch", named


def _short(items: int) -> str:
    return f"{items // 1000:,}k" if items < 1_000_000 else f"{items / 1e6:g}M"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _key(record: Json) -> tuple[str, ...]:
    """What tells cases apart."""
    return tuple(str(record[name]).zfill(8) for name in ("device", "table", "loss", "group", "sparse", "items"))
