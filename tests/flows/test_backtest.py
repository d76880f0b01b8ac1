"""Day by day: each policy trains on what was there and is measured on the day; what is done is not done again."""

from __future__ import annotations

import json
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from flows.backtest import backtest as run
from flows.child import Child
from flows.cli import app
from flows.reports.comparison import Row, Total
from flows.reports.day_by_day import differences, draw_days, table_of
from flows.settings.layers import read_changes
from flows.settings.settings import Data, resolve
from modeling.config import ModelConfig, TrainingConfig
from modeling.presets.by_shape import Shape
from modeling.stages import training
from schemas.errors import InputError

LITTLE = ("training.epochs=1", "training.tokens_per_step=64", "training.threads=1", "body.dim=16", "body.num_layers=1")
FIRST, SECOND = "2026-03-04", "2026-03-05"


def backtest(shop: Path, root: Path, *more: str) -> dict[str, Any]:
    changes = [word for change in LITTLE for word in ("--set", change)]
    given = ["--source", str(shop), "--root", str(root), "--from", FIRST, "--to", SECOND]
    done = CliRunner().invoke(app, ["backtest", *given, *changes, "--json", *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    summary: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    return summary | {"output": done.output}


def test_every_policy_on_every_day_and_nothing_twice(shop: Path, tmp_path: Path) -> None:
    done = backtest(shop, tmp_path)
    rows = {(row["fold"], row["name"]): row for row in done["rows"]}
    assert list(rows) == [(day, policy) for day in (FIRST, SECOND) for policy in ("scratch", "warm", "frozen")]
    first = rows[FIRST, "scratch"]["model"]
    assert all(rows[FIRST, policy]["model"] == first for policy in ("warm", "frozen"))
    assert rows[SECOND, "frozen"]["model"] == first
    assert rows[SECOND, "frozen"]["cpu_seconds"] == 0.0
    warm = json.loads((tmp_path / rows[SECOND, "warm"]["model"] / "manifest.json").read_text())
    assert warm["facts"]["start_from"] == first
    assert rows[SECOND, "scratch"]["model"] not in (first, rows[SECOND, "warm"]["model"])
    for row in (*done["rows"], *done["totals"]):
        low, high = row["intervals"]["ndcg@20"]
        assert low < row["metrics"]["ndcg@20"] < high
    folder = Path(done["folder"])
    assert folder.parent.name == "backtests"
    assert "| all days |" in (folder / "table.md").read_text()
    assert ElementTree.parse(folder / "days.svg").getroot().tag.endswith("svg")
    models = sorted((tmp_path / "models").iterdir())
    again = backtest(shop, tmp_path)
    assert again["artifact"] == done["artifact"]
    assert sorted((tmp_path / "models").iterdir()) == models
    assert "nothing to train" in again["output"]


def test_a_window_uses_so_many_days_before_each_day(shop: Path, tmp_path: Path) -> None:
    done = backtest(shop, tmp_path, "--window", "1", "--policy", "scratch", "--from", SECOND)
    model = json.loads((tmp_path / done["rows"][0]["model"] / "manifest.json").read_text())
    sessions = json.loads((tmp_path / model["parents"][0] / "manifest.json").read_text())
    assert list(sessions["facts"]["days"]) == [FIRST, SECOND]
    settings = resolve(Data(source=str(shop), root=tmp_path / "else"), None, read_changes(list(LITTLE))[1])
    with Child() as child:
        there = run(settings, date(2026, 3, 5), date(2026, 3, 5), ("scratch",), 1, lambda _: None, child.does)
    assert [row["metrics"] for row in there.facts["rows"]] == [row["metrics"] for row in done["rows"]]
    assert there.facts["rows"][0]["model"] == done["rows"][0]["model"], "in a process of its own, too"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--policy", "warmm"], "Did you mean 'warm'"),
        (["--policy", "warm,warm"], "name each of"),
        (["--from", "2026-03-06"], "lies after"),
        (["--until", "2026-03-05"], "in the place of --until"),
        (["--from", "2026-03-01"], "--from 2026-03-01: the data begin on 2026-03-02"),
        (["--from", "2026-03-02"], "--from 2026-03-02: the data begin on 2026-03-02"),
        (["--to", "2027-01-01"], r"--to 2027-01-01 is outside the data, which run from 2026-03-02 to 2026-03-\d\d"),
        (
            ["--from", "2025-01-01", "--to", "2025-02-01"],
            "--to 2025-02-01 is outside the data, which run from 2026-03-02",
        ),
        (["--policy", ","], "--policy '': name each of"),
        (["--redo", "2026-03-03"], "takes no --redo, got 2026-03-03"),
        (["--set", "training.warm_rate=inf"], "training.warm_rate"),
        (["--set", "dataset.split=leave_one_out"], "split leave_one_out"),
        (
            ["--set", "training.learning_rate=1e30", "--policy", "scratch"],
            "scratch, the first, with which the rest are",
        ),
    ],
)
def test_what_cannot_be_measured_by_days_is_refused(shop: Path, tmp_path: Path, more: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        backtest(shop, tmp_path, *more)


def test_a_start_that_is_not_used_is_named(shop: Path, tmp_path: Path) -> None:
    done = backtest(shop, tmp_path, "--policy", "scratch", "--to", FIRST, "--set", "training.start_from=champion")
    assert "Not used in a backtest: training.start_from champion" in done["output"]


def row(day: str, policy: str, ndcg: float | None, seconds: float = 2.0) -> Row:
    metrics, about = {"ndcg@20": ndcg}, {"scorer": "sasrec", "model": "models/1", "evaluation": "evaluations/1"}
    return Row(name=policy, fold=day, cases=9, cpu_seconds=seconds, metrics=metrics, **about)


def total(policy: str, ndcg: float) -> Total:
    return Total(name=policy, baseline=False, cases=18, cpu_seconds=2.0, metrics={"ndcg@20": ndcg})


def test_days_without_cases_leave_a_gap_in_table_and_picture() -> None:
    rows = [row("2026-03-04", "warm", 0.25), row("2026-03-05", "warm", None)]
    assert "| 2026-03-05 | - | 2.0 |" in table_of(rows, [total("warm", 0.25)], "ndcg@20")
    assert draw_days(rows, "ndcg@20").count("<polyline") == 2
    assert ElementTree.fromstring(draw_days([rows[1]], "ndcg@20")) is not None
    assert draw_days(rows[:1], "ndcg@20").count("<circle") == 2, "a line of one day is seen, too"


def test_policies_are_compared_with_the_first_by_what_they_cost_after_the_first_day() -> None:
    rows = [
        row(day, name, 0.2, cost) for day, cost in (("2026-03-04", 9.0), ("2026-03-05", 4.0)) for name in ("a", "b")
    ]
    rows[-1] = rows[-1].model_copy(update={"cpu_seconds": 1.0})
    second = total("b", 0.15).model_copy(update={"differences": {"ndcg@20": (-0.05, -0.06, -0.04)}})
    facts = {
        "metric": "ndcg@20",
        "rows": [row.model_dump() for row in rows],
        "left_out": {"c": "2026-03-05: it diverged"},
    }
    facts["totals"] = [total("a", 0.2).model_dump(), second.model_dump()]
    assert differences(facts) == [
        "b against a: ndcg@20 -0.0500 (-0.0600 to -0.0400), 25% of its CPU seconds",
        "Warning: c is left out: 2026-03-05: it diverged",
    ]


def test_days_are_measured_by_the_metric_of_promotion(shop: Path, tmp_path: Path) -> None:
    more = ["--set", "promotion.metric=recall@5", "--set", "evaluation.cutoffs=[5]"]
    done = backtest(shop, tmp_path, "--policy", "scratch,frozen", *more)
    assert done["metric"] == "recall@5" and "frozen against scratch: recall@5" in done["output"]
    assert "| scratch recall@5 |" in (Path(done["folder"]) / "table.md").read_text()


def test_a_day_whose_settings_do_not_fit_the_day_before_is_trained_from_scratch(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = training.settings_by_shape

    def wider_on_the_second_day(model: ModelConfig, config: TrainingConfig, shape: Shape) -> Any:
        chosen = rules(model, config, shape)
        dim = 16 if len(seen) < 2 else 8
        seen.append(dim)
        return chosen[0].model_copy(update={"body": chosen[0].body.model_copy(update={"dim": dim})}), *chosen[1:]

    seen: list[int] = []
    monkeypatch.setattr(training, "settings_by_shape", wider_on_the_second_day)
    done = backtest(shop, tmp_path, "--policy", "scratch,warm")
    assert "From scratch: training.start_from" in done["output"]
    rows = {(row["fold"], row["name"]): row for row in done["rows"]}
    assert rows[SECOND, "warm"]["model"] == rows[SECOND, "scratch"]["model"]


def test_bars_of_policies_stand_side_by_side() -> None:
    policies = ("scratch", "warm", "frozen")
    days = [f"2026-03-{day:02}" for day in range(1, 31)]
    bounds = {"intervals": {"ndcg@20": (0.2, 0.3)}}
    rows = [row(day, policy, 0.25).model_copy(update=bounds) for day in days for policy in policies]
    for shown in (days, days[:1]):
        picture = ElementTree.fromstring(draw_days([row for row in rows if row.fold in shown], "ndcg@20"))
        bars = [
            path.get("d", "")
            for path in picture.iter("{http://www.w3.org/2000/svg}path")
            if "H" not in path.get("d", "")
        ]
        places = [float(bar.split()[0][1:]) for bar in bars]
        assert len(set(places)) == len(shown) * len(policies)
        in_order = sorted(places)
        by_day = [in_order[first : first + 3] for first in range(0, len(places), 3)]
        assert all(later[0] - day[-1] > day[1] - day[0] for day, later in pairwise(by_day))
