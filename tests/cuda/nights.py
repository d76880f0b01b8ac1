"""Nights of a small shop on a GPU, and what becomes of the models: lists, exports, comparisons."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

LITTLE = {
    "training": {"epochs": 2, "tokens_per_step": 512, "order": "random"},
    "evaluation": {"baselines": ["popularity", "markov"], "lists": 10, "filter_seen": True},
}
EASY = {"baselines": [], "lists": 10, "filter_seen": True}


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
