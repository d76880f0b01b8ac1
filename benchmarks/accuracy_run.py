"""One training run of a grid: trained on prepared sessions by the ordinary stage, then validated and tested by the code that
evaluates. `benchmarks/accuracy_grid.py` starts this as a process that does run after run:

    {"name": ..., "root": ..., "dataset": ..., "settings": [...], "seed": 17, ...}     a line of standard input, a `Run`
    RESULT {"name": ..., "validation": {...}, "test": {...}, "seconds": ...}           a line of standard output

All further lines are what training says. A run that fails ends the process: a GPU that has failed serves it no more.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from accuracy_hours import Windows, run_hours  # noqa: E402
from pydantic import BaseModel, ConfigDict  # noqa: E402

Json = dict[str, Any]
CUTOFFS = (10, 20)
ALL = 10**9  # validation cases: of each history


class Run(BaseModel):
    """A training run, and what is measured of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    data: str
    root: Path
    dataset: str
    changes: Json = {}
    settings: tuple[str, ...] = ()
    preset: str | None = None
    seed: int = 17
    metrics: tuple[str, ...]
    windows: dict[str, Windows] = {}
    compiled_from: int | None = None
    gpu: bool = True

    @property
    def given(self) -> tuple[str, ...]:
        """Settings as `--set` takes them."""
        return (*self.settings, f"training.seed={self.seed}", "training.threads=1")


def do(run: Run) -> Json:
    """Train and measure one run -> its line of results, metrics with cold targets as misses."""
    began, clock = time.perf_counter(), time.process_time()
    measured = do_hours(run) if run.windows else do_histories(run)
    return {
        "data": run.data,
        "name": run.name,
        "seed": run.seed,
        "settings": list(run.settings),
        "preset": run.preset,
        "device": device_name(),
        **measured,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - clock, 1),
    }


def do_histories(run: Run) -> Json:
    """Leave-one-out: all last items but one validate, all last ones are the test."""
    from flows.settings.layers import read_changes
    from flows.settings.settings import Data, resolve
    from modeling.stages import train
    from modeling.training import device
    from schemas.artifacts import Artifacts

    if run.compiled_from is not None:
        device.COMPILED_FROM = run.compiled_from
    sessions = Artifacts(run.root).newest("sessions")
    assert sessions, f"no prepared sessions in {run.root}"
    _, given = read_changes(list(run.given))
    data = Data(dataset=run.dataset, source=str(run.root), root=run.root, changes=run.changes)
    settings = resolve(data, run.preset, given)
    with tempfile.TemporaryDirectory() as folder:
        model = train(Artifacts(folder), sessions, settings.model, settings.training, say, goal=settings.goal)
        history = json.loads((model.folder / "history.json").read_text())
        metrics = measure(model.folder, sessions, settings.evaluation.filter_seen, run.metrics)
    goal = model.facts["goal"]
    return metrics | {
        "steps": model.facts["steps"],
        "best_step": model.facts["best_step"],
        "parameters": model.facts["parameters"],
        "train_seconds": model.facts["wall_seconds"],
        "tokens": model.facts["tokens"],
        "by_shape": model.facts["by_shape"],
        "goals": [round(row["validation"][goal], 4) for row in history if goal in row["validation"]],
    }


def measure(folder: Path, sessions: Any, filter_seen: bool, names: tuple[str, ...]) -> Json:
    """A model on all validation and test cases, by the code that evaluates: {"validation": {...}, "test": {...}}."""
    import torch

    from modeling.config import SplitConfig
    from modeling.evaluation.metrics import metrics_at
    from modeling.evaluation.ranking import ranks
    from modeling.model import SequenceModel
    from modeling.scoring import ModelScorer
    from modeling.splits import split_sessions, trained_items
    from modeling.stages.measure import measurable
    from schemas.features import FeatureSchema

    schema = FeatureSchema.read(sessions.folder / "schema.json")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SequenceModel.load(folder).to(device)
    split = split_sessions(sessions, schema, ALL, SplitConfig(), model.settings.inputs.past_events)
    trained_V, made = trained_items(split.train, schema.num_items), dict[str, Any]()
    for which, cases in (("validation", split.validation), ("test", split.test)):
        asked, counts = measurable(cases, trained_V)
        rank_N = ranks(ModelScorer(model), asked.to(device), filter_seen=filter_seen)
        share = counts["cases"] / max(len(cases.target), 1)
        values = metrics_at(rank_N, CUTOFFS)
        made[which] = {name: round(values[name] * share, 5) for name in names}
    return made


def do_hours(run: Run) -> Json:
    """Hour by hour on the windows named `validation` and `test`."""
    from flows.settings.layers import read_changes
    from flows.settings.settings import Data
    from schemas.artifacts import Artifacts

    _, given = read_changes(list(run.given))
    made: Json = {"steps": 0}
    for which, windows in run.windows.items():
        sessions = Artifacts(run.root / which).newest("sessions")
        with tempfile.TemporaryDirectory() as folder:
            data = Data(dataset=run.dataset, source=str(run.root), root=Path(folder), changes=run.changes)
            done = run_hours(data, windows, run.preset, given, run.metrics, say, sessions)
        ours, *_ = done["metrics"]
        made[which] = {name: round(value, 5) for name, value in done["metrics"][ours].items()}
        made["steps"] += done["steps"]
    return made


def device_name() -> str:
    """The card, or cpu."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def say(line: object) -> None:
    """What training says, in one line; not how far it has come where it says no more."""
    if getattr(line, "message", line):
        print(" ".join(str(line).split()), flush=True)


def main() -> None:
    """Run after run, until standard input ends."""
    import torch

    torch.set_num_threads(1)
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    for line in sys.stdin:
        run = Run.model_validate_json(line)
        result = do(run)
        print("RESULT " + json.dumps(result), flush=True)
        if "torch._dynamo" in sys.modules:
            sys.modules["torch._dynamo"].reset()
        gc.collect()  # recorded steps keep their memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
