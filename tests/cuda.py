"""What only a real GPU shows of training, ranking and serving, as functions that ask for a folder; no test framework is needed.

    python -m tests.cuda OUT [NAME ...] [--within 100]

One JSON line each, also in OUT/cuda.jsonl. `tests/test_cuda.py` makes tests of them where there is a GPU. With
`--pretend` they run on the pretended device of `tests/second_device.py`, but for those that need kernels.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import torch

from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation import fused
from modeling.evaluation.ranking import ranks, top_k
from modeling.scoring import ModelScorer, VectorScorer
from modeling.sessions import Sessions
from modeling.splits import Cases, Split, hide_last
from modeling.training import device as on_device
from modeling.training.fit import fit
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.features import FeatureColumn, FeatureSchema

NUM_ITEMS = 300
BODIES = [
    ("sasrec", "causal", "sampled_softmax"), ("hstu", "causal", "full_softmax"), ("bert4rec", "masked", "sampled_softmax"),
    ("ligr", "causal", "gbce"), ("gpt2", "causal", "full_softmax"), ("llama", "causal", "bce"),
    ("modernbert", "masked", "full_softmax"), ("sasrec", "replaced_token", "sampled_softmax"), ("bst", "causal", "bpr_max"),
    ("gru4rec", "causal", "top1_max"), ("xlnet", "permuted", "full_softmax"),
]  # fmt: skip
UNRECORDED = ("gru4rec", "xlnet")  # one session a row, or rows attended whole
LITTLE = {
    "training": {"epochs": 2, "tokens_per_step": 512, "order": "random"},
    "evaluation": {"baselines": ["popularity", "markov"], "lists": 10, "filter_seen": True},
}

EASY = {"baselines": [], "lists": 10, "filter_seen": True}


def made_up(count: int = 600, seed: int = 0) -> tuple[FeatureSchema, Sessions]:
    """Sessions of 2 to 12 events with a category and a price."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 13, (count,), generator=generator)
    item_E = torch.randint(
        FIRST_ID, FIRST_ID + NUM_ITEMS, (int(lengths.sum()),), generator=generator, dtype=torch.int32
    )
    number = {"kind": "categorical", "dtype": "int32"}
    columns = (
        FeatureColumn(name=ITEM_ID, source=ITEM_ID, cardinality=NUM_ITEMS + FIRST_ID, **number),
        FeatureColumn(name="type", source="type", cardinality=FIRST_ID + 5, **number),
        FeatureColumn(name="price", kind="continuous", source="price", dtype="float32"),
    )
    events = {ITEM_ID: item_E, "type": item_E % 5 + FIRST_ID, "price": (item_E % 7).float() / 7}
    sessions = Sessions(events, lengths.cumsum(0) - lengths, lengths, torch.arange(count) * 1_000_000)
    return FeatureSchema(dataset="made_up", max_length=20, split="day", columns=columns), sessions


def fitted(folder: Path, groups: dict[str, Any], **training: Any) -> tuple[list[float], dict[str, Any], list[str]]:
    """The losses of a short run, its facts and what was said."""
    schema, sessions = made_up()
    cases, lines = hide_last(sessions), list[str]()
    split = Split(sessions, Cases(cases.history, cases.target), cases, sessions)
    config = TrainingConfig(epochs=3, tokens_per_step=512, evaluations=2, patience=10, order="random", **training)
    model = ModelConfig.model_validate(groups)
    _, facts = fit(schema, split, model, config, folder, lambda line: lines.append(str(line)))
    return [row["loss"] for row in facts["history"]], facts, lines


def groups_of(body: str, objective: str, loss: str) -> dict[str, Any]:
    """A small model with dropout and without attention that drops anything."""
    negatives = {} if loss == "full_softmax" else {"negatives": {"count": 32}}
    return {
        "body": {"name": body, "dim": 32, "num_layers": 2, "num_heads": 2, "dropout": 0.2, "attention_dropout": 0.0},
        "objective": objective,
        "loss": {"name": loss} | negatives,
    }


def body(name: str, objective: str, loss: str, folder: Path) -> Any:
    """Captured steps have the losses of steps done one by one; nothing is given up on the way."""
    groups, curves = groups_of(name, objective, loss), []
    for capture in ("off", "auto"):
        losses, _, lines = fitted(folder / capture, groups, capture=capture)
        gave_up = [line for line in lines if "goes on without" in line]
        assert not gave_up, gave_up
        curves.append(losses)
    apart = max(abs(one - two) / abs(one) for one, two in zip(*curves, strict=True))
    assert apart < 0.02, curves
    assert curves[1][-1] < curves[1][0] * 1.02, curves
    return {"apart": apart, "losses": curves[1]}


def compiled(name: str, objective: str, loss: str, folder: Path) -> Any:
    """Compiled steps draw other numbers and learn as well."""
    before, on_device.COMPILED_FROM = on_device.COMPILED_FROM, 0
    try:
        losses, _, lines = fitted(folder / "compiled", groups_of(name, objective, loss))
    finally:
        on_device.COMPILED_FROM = before
    gave_up = [line for line in lines if "goes on without" in line]
    assert not gave_up, gave_up
    expected, _, _ = fitted(folder / "plain", groups_of(name, objective, loss), compile="off")
    assert abs(losses[-1] - expected[-1]) < 0.05 * expected[-1], (losses, expected)
    return {"losses": losses, "expected": expected}


def what_reads_is_found_out(folder: Path) -> Any:
    """A step that asks the device for a value is done step by step, and that is said."""
    plain = on_device.Steps._loss_of_step

    def reading(steps: on_device.Steps) -> torch.Tensor:
        loss = plain(steps)
        return loss + 0.0 * float(loss)

    on_device.Steps._loss_of_step = reading  # type: ignore[method-assign]
    try:
        losses, _, lines = fitted(folder, groups_of("sasrec", "causal", "full_softmax"), compile="off")
    finally:
        on_device.Steps._loss_of_step = plain  # type: ignore[method-assign]
    assert sum("not captured" in line for line in lines) == 1, lines
    return {"said": [line for line in lines if "not captured" in line], "losses": losses}


class Given(VectorScorer):
    """Random queries and items of a device."""

    def __init__(self, queries_NE: torch.Tensor, items_VE: torch.Tensor, rankable_V: torch.Tensor) -> None:
        super().__init__(items_VE, None, rankable_V)
        self.queries_NE = queries_NE

    def queries(self, histories: Sessions) -> torch.Tensor:
        """By the sessions' numbers."""
        return self.queries_NE[histories.end]


def ranks_and_lists(folder: Path) -> Any:
    """Kernels, torch's own operations on the GPU and the CPU rank alike, with ties, seen items and items never to rank."""
    generator = torch.Generator().manual_seed(0)
    about: dict[str, Any] = {"kernels": fused.takes(torch.device("cuda"))}
    assert about["kernels"], "Triton cannot be used"
    for num_items, num_histories, k in ((40, 50, 60), (5000, 300, 20), (70_000, 200, 100), (1_200_000, 64, 20)):
        items_VE = torch.randn(num_items, 16, generator=generator)
        items_VE[::7] = items_VE[0]  # many tie
        queries_NE = torch.randn(num_histories, 16, generator=generator)
        rankable_V = torch.rand(num_items, generator=generator) > 0.1
        seen = torch.randint(
            FIRST_ID, num_items + FIRST_ID, (num_histories * 20,), generator=generator, dtype=torch.int32
        )
        number = torch.arange(num_histories)
        history = Sessions({ITEM_ID: seen}, number * 20, torch.full_like(number, 20), number)
        cases = Cases(history, torch.randint(FIRST_ID, num_items + FIRST_ID, (num_histories,), generator=generator))
        answers = {}
        for where in ("cpu", "cuda", "kernels"):
            device = "cpu" if where == "cpu" else "cuda"
            plain, fused.takes = fused.takes, fused.takes if where == "kernels" else lambda device: False
            try:
                scorer = Given(*(some.to(device) for some in (queries_NE, items_VE, rankable_V)))
                rank_N = ranks(scorer, cases.to(device), filter_seen=True).cpu()
                ids_NK, scores_NK = (of.cpu() for of in top_k(scorer, history.to(device), k, filter_seen=True))
            finally:
                fused.takes = plain
            answers[where] = rank_N, ids_NK, scores_NK
        for where in ("cuda", "kernels"):
            (rank_N, ids_NK, _), (other_N, other_NK, _) = answers["cpu"], answers[where]
            # Products are rounded differently: of a million scores some lie nearer to the target's than that.
            same = [((rank_N - other_N).abs() <= num_items / 100_000), ids_NK == other_NK]
            shares = [float(these.double().mean()) for these in same]
            about[f"{num_items} {where}"] = [round(share, 5) for share in shares]
            assert min(shares) > 0.999, (num_items, where, shares)
    return about


@cache
def shop() -> Path:
    """Events of a small shop; the second night's shop is one day longer."""
    from preprocessing.simulate import Shop, simulate

    folder = Path(tempfile.mkdtemp(prefix="shop"))
    for days in (5, 6):
        simulate(Shop(days=days, users=300, items=200, share_new=0.1, seed=2), folder / str(days))
    return folder


def settings_of(root: Path, days: int, preset: str | None = None, **given: Any) -> Any:
    """Of a night of the small shop."""
    from flows.settings.settings import Data, resolve

    training = LITTLE["training"] | given.pop("training", {})
    return resolve(
        Data(dataset="demo", source=str(shop() / str(days)), root=root), preset, LITTLE | {"training": training} | given
    )


def night(folder: Path) -> Any:
    """Two nights: prepare, train with the newest days as validation, evaluate, guards, compare, promote the refit; the second
    starts from what is in service. Then lists, similar items and reasons on the GPU, which are the CPU's.
    """
    from flows import stages
    from modeling.service.recommender import Recommender

    said: list[str] = []
    about: dict[str, Any] = {"in_service": []}
    for days, training in ((5, {"refit": True}), (6, {"refit": True, "start_from": "champion", "warm_epochs": 1})):
        changes = {"promotion": {"guards": {"latency_ms": 10_000}}, "evaluation": EASY}
        settings = settings_of(folder, days, training={"epochs": 12} | training, **changes)
        sessions = stages.prepare(settings, said.append)
        model = stages.train(settings, sessions, said.append)
        evaluation = stages.evaluate(settings, model, sessions, said.append)
        comparison = stages.compare(settings, evaluation, sessions, said.append)
        served = stages.promote(settings, comparison, said.append)
        about["in_service"].append(served.model)
        about["guards"] = {row["guard"]: row["value"] for row in comparison.facts.get("guards", [])}
        about["metrics"] = evaluation.facts["metrics"]
    on_gpu, on_cpu = (Recommender(model.folder, where) for where in ("cuda", "cpu"))
    values = on_cpu.items["value"].to_list()
    raw = [values[place : place + 1 + place % 4] for place in range(40)]
    lists = [made.recommend(made.histories(raw)[0], 10, filter_seen=True) for made in (on_gpu, on_cpu)]
    about["lists_alike"] = sum(one == two for one, two in zip(*lists, strict=True)) / len(raw)
    near = [[[item for item, _ in row] for row in made.similar(values[:20], 5)] for made in (on_gpu, on_cpu)]
    about["similar_alike"] = sum(one == two for one, two in zip(*near, strict=True)) / 20
    reasons = on_gpu.because(on_gpu.histories(raw[:8])[0], 3)
    assert len(reasons) == 8
    about["said"] = [line for line in map(str, said) if "warn" in line.lower() or "not " in line][:10]
    assert about["in_service"][0] != "none", about
    assert about["lists_alike"] > 0.85 and about["similar_alike"] > 0.85, about
    return about


def bulk_lists(folder: Path) -> Any:
    """Lists from a model trained on the GPU, streamed to Parquet, and new items."""
    from flows import stages
    from modeling.service.bulk import Histories, write_lists
    from modeling.service.recommender import Recommender

    settings = settings_of(folder, 5, inputs={"item_tower": "concat"})
    sessions = stages.prepare(settings, lambda line: None)
    model = stages.train(settings, sessions, lambda line: None)
    recommender = Recommender(model.folder)
    values = recommender.items["value"].to_list()
    histories, unknown = recommender.histories([[value] for value in values[:100]])
    keys = pl.DataFrame({"user_id": list(range(100))})
    batch = Histories(histories, keys, list(unknown) if unknown else [])
    counts = write_lists(recommender, iter([batch]), folder / "out", 5, filter_seen=True)
    assert counts["histories"] == 100 and counts["rows"] == 500, counts
    added, _ = recommender.add_items(pl.read_parquet(shop() / "6" / "items.parquet"))
    again = recommender.recommend(recommender.histories([recommender.items["value"][-2:].to_list()])[0], 5)
    assert len(again[0]) == 5
    return counts | {"added": added}


def exported(folder: Path) -> Any:
    """A model trained on the GPU as ONNX, or where that is not installed as a package of torch.export."""
    from importlib.util import find_spec

    from flows import stages
    from modeling.service.export import export
    from modeling.service.recommender import Recommender

    settings = settings_of(folder, 5)
    model = stages.train(settings, stages.prepare(settings, lambda line: None), lambda line: None)
    kind: Any = "onnx" if find_spec("onnxscript") and find_spec("onnxruntime") else "torch"
    about = export(Recommender(model.folder), folder / "export", kind)
    assert about.difference < 1e-3
    return {"format": about.format, "difference": about.difference}


def presets_compared(folder: Path) -> Any:
    """`overnight compare` of two presets."""
    from importlib.util import find_spec

    if find_spec("plotly") is None:
        return {"left_out": "plotly is not installed"}
    from flows.compare import compare

    made = compare(settings_of(folder, 5), "default,gru4rec+body.dim=16", 1, None, lambda line: None)
    return [{name: row[name] for name in list(row)[:4]} for row in made.facts["totals"]]


def child_process(folder: Path) -> Any:
    """Training in the supervised process of a night; a model trained there is the one trained here."""
    from flows import stages
    from flows.child import Child

    settings = settings_of(folder, 5)
    sessions = stages.prepare(settings, lambda line: None)
    with Child() as child:
        model = child.does(stages.train)(settings, sessions, lambda line: None)
        evaluation = child.does(stages.evaluate)(settings, model, sessions, lambda line: None)
    assert stages.train(settings, sessions, lambda line: None).reused
    return {"cases": evaluation.facts["cases"]}


def interrupted(folder: Path) -> Any:
    """A run that is stopped in the middle goes on from its checkpoint, captured again."""
    schema, sessions = made_up()
    cases = hide_last(sessions)
    split = Split(sessions, Cases(cases.history, cases.target), cases, sessions)
    config = TrainingConfig(epochs=3, tokens_per_step=256, evaluations=3, patience=10, order="random")
    model = ModelConfig.model_validate(groups_of("sasrec", "causal", "sampled_softmax"))

    def stop(state: Any) -> None:
        if state.step > 20:
            raise KeyboardInterrupt

    quiet: Callable[[object], None] = lambda line: None  # noqa: E731
    _, whole = fit(schema, split, model, config, folder / "whole", quiet)
    try:
        fit(schema, split, model, config, folder / "broken", quiet, after_step=stop)
        raise AssertionError("it was not stopped")
    except KeyboardInterrupt:
        _, again = fit(schema, split, model, config, folder / "broken", quiet)
    last = [facts["history"][-1]["loss"] for facts in (whole, again)]
    assert abs(last[0] - last[1]) < 0.02 * last[0], last
    return last


def label_heads(folder: Path) -> Any:
    """Heads on labels, captured."""
    from schemas.features import LabelColumn

    schema, sessions = made_up()
    odd = (sessions.items % 2).float()
    sessions = replace(sessions, event_labels={"odd": odd}, labels={"size": sessions.lengths.float()})
    labels = (
        LabelColumn(name="odd", per="event", source="odd"),
        LabelColumn(name="size", per="session", source="size"),
    )
    cases = hide_last(sessions)
    split = Split(sessions, Cases(cases.history, cases.target), cases, sessions)
    heads = {"next_item": {"bias": True}, "odd": "binary", "size": {"name": "regression", "log": True}}
    config = TrainingConfig(epochs=2, tokens_per_step=512, evaluations=2, patience=10, order="random")
    model, facts = fit(
        schema.model_copy(update={"labels": labels}), split, ModelConfig.model_validate({"heads": heads}), config, folder,
        lambda line: None,
    )  # fmt: skip
    scorer = ModelScorer(model)
    ids_NK, _ = top_k(scorer, sessions.to(model.device), 5)
    assert ids_NK.shape == (len(sessions), 5)
    return facts["history"][-1]["validation"]


CHECKS: dict[str, Callable[[Path], Any]] = {
    "ranks_and_lists": ranks_and_lists,
    "night": night,
    **{f"{of[0]}:{of[1]}": (lambda folder, of=of: body(*of, folder)) for of in BODIES},
    "what_reads_is_found_out": what_reads_is_found_out,
    "interrupted": interrupted,
    "label_heads": label_heads,
    "bulk_lists": bulk_lists,
    "exported": exported,
    "child_process": child_process,
    "presets_compared": presets_compared,
    "compiled bert4rec:masked": lambda folder: compiled("bert4rec", "masked", "sampled_softmax", folder),
    "compiled sasrec:causal": lambda folder: compiled("sasrec", "causal", "full_softmax", folder),
}  # fmt: skip
NEED_KERNELS = (
    "ranks_and_lists",
    "what_reads_is_found_out",
    "compiled bert4rec:masked",
    "compiled sasrec:causal",
    "child_process",
)


def main() -> None:
    """Run checks one after the other; what fails is said with its trace and stops nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--within", type=float, default=100, help="no check begins after so many seconds")
    parser.add_argument("--pretend", action="store_true")
    given = parser.parse_intermixed_args()
    given.out.mkdir(parents=True, exist_ok=True)
    names = given.names or [name for name in CHECKS if not given.pretend or name not in NEED_KERNELS]
    began, failed = time.monotonic(), 0
    for name in names:
        if time.monotonic() - began > given.within:
            report(given.out, {"check": name, "left_out": True})
            continue
        failed += not run(name, given.out, given.pretend)
    sys.exit(failed > 0)


def run(name: str, out: Path, pretend: bool) -> bool:
    """One check in a folder of its own; whether it passed."""
    folder, began = Path(tempfile.mkdtemp(prefix="cuda")), time.monotonic()
    line: dict[str, Any] = {"check": name}
    try:
        with ExitStack() as stack:
            if pretend:
                from tests.second_device import pretended_cuda

                stack.enter_context(pretended_cuda())
            line |= {"passed": True, "about": CHECKS[name](folder)}
    except Exception as error:
        line |= {"passed": False, "error": repr(error)[:500], "trace": traceback.format_exc()[-2500:]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(out, line | {"seconds": round(time.monotonic() - began, 1)})
    return bool(line["passed"])


def report(out: Path, line: dict[str, Any]) -> None:
    """Print a line, and keep it."""
    text = json.dumps(line, default=str)
    print(text, flush=True)
    with (out / "cuda.jsonl").open("a") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    main()
