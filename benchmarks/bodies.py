"""Measure how fast bodies train: forward, backward and an optimizer's step, on sessions as short as they are.

    python benchmarks/bodies.py --bodies sasrec ligr --dims 64      some, on the terminal
    python benchmarks/bodies.py --write                             all, into docs/models.md and benchmarks/bodies.json

Sessions are drawn so that half hold four events or fewer, the mean is about six and the longest fifty, of 20,000 items; a
step takes 1,600 events. Tokens are events read, never padding. `padded` gives each session a row as long as the
longest, as other recommenders do; `peers' shape` also draws 256 negatives for every single place instead of for 32. One
thread, CPU seconds of this process; on a GPU, wall seconds in bfloat16, 65,536 events a step.
"""

from __future__ import annotations

import argparse
import json
import platform
import textwrap
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from modeling import bodies, objectives, parts
from modeling.attention import Layout
from modeling.batches import Shape, lay_out
from modeling.bodies import _table
from modeling.config import ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.training.schedule import make_schedule
from schemas import plugins
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.features import FeatureColumn, FeatureSchema

PROJECT = Path(__file__).resolve().parents[1]
RECORDS, PAGE = PROJECT / "benchmarks" / "bodies.json", PROJECT / "docs" / "models.md"
NUM_ITEMS, LONGEST = 20_000, 50
CUDA = torch.cuda.is_available()
TOKENS = 65_536 if CUDA else 1_600
Json = dict[str, Any]


def some_sessions(count: int) -> Sessions:
    """Sessions of short and long visitors; items by a power law, seconds between events."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.exp(1.35 + 0.9 * torch.randn(count, generator=generator)).long().clamp(2, LONGEST)
    num_events = int(lengths.sum())
    rank = (NUM_ITEMS ** torch.rand(num_events, generator=generator)).long().clamp(max=NUM_ITEMS) - 1
    elapsed = torch.exp(3 + torch.randn(num_events, generator=generator))
    return Sessions(
        events={ITEM_ID: (rank + FIRST_ID).int(), "elapsed": elapsed},
        starts=lengths.cumsum(0) - lengths,
        lengths=lengths,
        end=torch.arange(count),
    )


def schema() -> FeatureSchema:
    """Items and the time between events."""
    columns = (
        FeatureColumn(
            name=ITEM_ID, kind="categorical", source=ITEM_ID, dtype="int32", cardinality=NUM_ITEMS + FIRST_ID
        ),
        FeatureColumn(name="elapsed", kind="continuous", source="timestamp", dtype="float32", transform=("elapsed",)),
    )
    return FeatureSchema(dataset="benchmark", max_length=LONGEST, split="day", columns=columns)


class Padded(SequenceModel):
    """The same model on a row for each session."""

    def lay_out(self, sessions: Sessions, *, ask: bool = False, shape: Shape | None = None) -> Layout:
        direction = self.objective.direction
        return lay_out(sessions, packed=False, ask=ask, direction=direction, shape=shape)

    @property
    def flat(self) -> bool:
        return False


def measure(body: str, objective: str, dim: int, shape: str, steps: int, sessions: Sessions) -> Json:
    """Tokens per CPU second of one model in one shape, and how much of a batch is padding."""
    torch.manual_seed(0)
    config = ModelConfig.model_validate(
        {
            "body": {"name": body, "dim": dim, "dropout": 0.0 if CUDA else 0.2},
            "objective": objective,
            "loss": {"name": "sampled_softmax", "negatives": {"group": 1 if shape == "peers' shape" else 32}},
        }
    )
    device = "cuda" if CUDA else "cpu"
    model = (SequenceModel if shape == "ours" else Padded)(config, schema()).train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    settings = TrainingConfig(epochs=1, tokens_per_step=TOKENS, order="random")
    schedule = make_schedule(model, sessions.to(device), settings)
    schedule.by_length = schedule.by_length and shape == "ours"
    batches = [schedule[step] for step in range(min(steps + 1, len(schedule)))]
    slots = sum(batch.layout.segments_BL.numel() for batch in batches)
    seconds, tokens = [], []
    for batch in batches:
        tokens.append(int(batch.layout.inside_BL.sum()))
        begun = _clock()
        with torch.autocast(device, torch.bfloat16, enabled=CUDA):
            loss = model(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(_clock() - begun)
    rate = median(count / second for count, second in zip(tokens[1:], seconds[1:], strict=True))
    return {
        "body": body,
        "objective": objective,
        "dim": dim,
        "shape": shape,
        "packed": model.body.packed,
        "tokens_per_second": round(rate),
        "slots_per_token": round(slots / sum(tokens), 2),
        "parameters": sum(parameter.numel() for parameter in model.body.parameters()),
    }


def _clock() -> float:
    if CUDA:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def cases(names: list[str], dims: list[int]) -> Iterator[tuple[str, str, int, str]]:
    """Every pair at the first width; the other widths and shapes with the pair's first objective."""
    for body in names:
        pairs = [name for name in plugins.names(objectives) if parts.goes_together(body, name)]
        for dim in dims:
            for objective in pairs if dim == dims[0] else pairs[:1]:
                yield body, objective, dim, "ours"
            yield body, pairs[0], dim, "padded"
            yield body, pairs[0], dim, "peers' shape"


def page(records: list[Json]) -> str:
    """docs/models.md: what goes with what, and how fast."""
    by = {(one["body"], one["objective"], one["dim"], one["shape"]): one for one in records}
    names, wide = sorted({one["body"] for one in records}), sorted({one["dim"] for one in records})
    offered = plugins.names(objectives)
    unit = "GPU second" if CUDA else "CPU second"
    lines = [
        "# Bodies and objectives",
        "",
        "`python benchmarks/bodies.py --write` renews this page. Which body can be trained with which objective, and how many",
        f"thousand events it reads per {unit} of training (width {wide[0]}, two layers, {NUM_ITEMS:,} items, sampled softmax",
        "with 256 negatives per 32 predictions, optimizer's step included). Causal predicts from each event read; the others",
        "predict a part of them, so columns do not compare. A dash: refused, the body would see what it is asked about, or not",
        "what it is to learn from. Packed bodies take several sessions in a row; the others one, among sessions of about the",
        "same length. How training runs: [training.md](training.md).",
        "",
        f"Measured on {machine()}. Compare within the page, not with other machines.",
        "",
        "| body | rows | " + " | ".join(offered) + " |",
        "|---|---|" + "---|" * len(offered),
    ]
    for body in names:
        of_objectives = [by.get((body, objective, wide[0], "ours")) for objective in offered]
        packed = next(one for one in of_objectives if one)["packed"]
        cells = [f"{one['tokens_per_second'] / 1000:.1f}" if one else "-" for one in of_objectives]
        lines.append(f"| {body} | {'packed' if packed else 'by length'} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## What padding costs",
        "",
        "The body's first objective above: thousand events per second as Overnight lays sessions out, then each session padded",
        "to the longest, then padded with 256 negatives for every single prediction, which is the shape most recommenders",
        "train in. Slots are places of a batch per event in it.",
        "",
        "| body | width | weights | ours | slots | padded | slots | ours / padded | peers' shape | ours / peers' shape |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for body in names:
        for dim in wide:
            shapes = {one["shape"]: one for one in records if (one["body"], one["dim"]) == (body, dim)}
            first = shapes["padded"]["objective"]
            ours, padded, peers = by[body, first, dim, "ours"], shapes["padded"], shapes["peers' shape"]
            rates = [one["tokens_per_second"] for one in (ours, padded, peers)]
            cells = [
                body,
                str(dim),
                f"{ours['parameters']:,}",
                f"{rates[0] / 1000:.1f}",
                f"{ours['slots_per_token']:.2f}",
                f"{rates[1] / 1000:.1f}",
                f"{padded['slots_per_token']:.2f}",
                f"{rates[0] / rates[1]:.1f}",
                f"{rates[2] / 1000:.1f}",
                f"{rates[0] / rates[2]:.1f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *further()]) + "\n"


def further() -> list[str]:
    """The model types of transformers that are bodies by name and not measured here, by what they can do."""
    by_kind: dict[str, list[str]] = {}
    for name, row in sorted(_table.MORE.items()):
        ways = " and ".join(sorted("causally" if way == "causal" else "both ways" for way in row.directions))
        by_kind.setdefault(f"Look {ways}, {'packed' if row.packed else 'by length'}", []).append(name)
    lines = ["", "## Further model types of Hugging Face transformers", ""]
    lines += textwrap.wrap(
        "Bodies by name, too, held to the same laws by tests/modeling/test_hugging_face.py and not measured here. Those that "
        "look causally go with the objective causal, those that look both ways with masked and replaced_token. Any other type "
        "takes a file of five lines (README, bodies of your own).",
        118,
    )
    for kind, names in sorted(by_kind.items()):
        lines += [
            "",
            *textwrap.wrap(f"{kind}: {', '.join(names)}.", 118, break_long_words=False, break_on_hyphens=False),
        ]
    return lines


def machine() -> str:
    """Processor and versions."""
    if CUDA:
        name = torch.cuda.get_device_name()
    else:
        told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
        models = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
        name = f"one thread of {models[0] if models else platform.processor()}"
    return f"{name}, torch {torch.__version__}, transformers {version('transformers')}"


def main() -> None:
    """Measure what was asked for, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", nargs="+", default=plugins.names(bodies), help="which; else all")
    parser.add_argument("--dims", nargs="+", type=int, default=[64, 128], help="widths of hidden states")
    parser.add_argument("--steps", type=int, default=8, help="steps of which the median is taken, after one to warm up")
    parser.add_argument("--write", action="store_true", help="renew docs/models.md and bodies.json")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    sessions = some_sessions(200_000 if CUDA else 8_000)
    records = []
    for body, objective, dim, shape in cases(chosen.bodies, chosen.dims):
        records.append(measure(body, objective, dim, shape, chosen.steps, sessions))
        print(json.dumps(records[-1]), flush=True)
    if chosen.write:
        RECORDS.write_text("".join(json.dumps(one) + "\n" for one in records))
        PAGE.write_text(page(records))


if __name__ == "__main__":
    main()
