"""Day by day: each policy trains on what was there and is measured on the day; what is done is not done again."""

from __future__ import annotations

import json
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from flows.backtest import backtest as run
from flows.child import Child
from flows.cli import app
from flows.reports.day_by_day import Row, Total, differences, draw_days, interval, table_of
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
    rows = {(row["day"], row["policy"]): row for row in done["rows"]}
    assert list(rows) == [(day, policy) for day in (FIRST, SECOND) for policy in ("scratch", "warm", "frozen")]
    first = rows[FIRST, "scratch"]["model"]
    assert all(rows[FIRST, policy]["model"] == first for policy in ("warm", "frozen"))
    assert rows[SECOND, "frozen"]["model"] == first
    assert rows[SECOND, "frozen"]["cpu_seconds"] == 0.0
    warm = json.loads((tmp_path / rows[SECOND, "warm"]["model"] / "manifest.json").read_text())
    assert warm["facts"]["start_from"] == first
    assert rows[SECOND, "scratch"]["model"] not in (first, rows[SECOND, "warm"]["model"])
    assert all(row["low"] < row["ndcg"] < row["high"] for row in done["rows"])
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
    assert [row["ndcg"] for row in there.facts["rows"]] == [row["ndcg"] for row in done["rows"]]
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
    ],
)
def test_what_cannot_be_measured_by_days_is_refused(shop: Path, tmp_path: Path, more: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        backtest(shop, tmp_path, *more)


def test_a_start_that_is_not_used_is_named(shop: Path, tmp_path: Path) -> None:
    done = backtest(shop, tmp_path, "--policy", "scratch", "--to", FIRST, "--set", "training.start_from=champion")
    assert "Not used in a backtest: training.start_from champion" in done["output"]


def row(day: str, policy: str, ndcg: float | None) -> Row:
    about = {"model": "models/1", "evaluation": "evaluations/1", "body": "sasrec", "recall": ndcg, "sessions": 3}
    return Row(day=day, policy=policy, ndcg=ndcg, cases=9, cpu_seconds=2.0, **about)


def test_days_without_cases_leave_a_gap_in_table_and_picture() -> None:
    rows = [row("2026-03-04", "warm", 0.25), row("2026-03-05", "warm", None)]
    total = Total(policy="warm", ndcg=0.25, cpu_seconds=4.0, later_cpu_seconds=2.0)
    assert "| 2026-03-05 | - | 2.0 |" in table_of(rows, [total])
    assert draw_days(rows, ("warm",)).count("<polyline") == 2
    assert ElementTree.fromstring(draw_days([rows[1]], ("warm",))) is not None
    assert draw_days(rows[:1], ("warm",)).count("<circle") == 2, "a line of one day is seen, too"
    rest = total.model_copy(update={"policy": "frozen", "ndcg": 0.2, "later_cpu_seconds": 0.0})
    assert differences([total, rest]) == ["frozen against warm: ndcg@20 -0.0500, 0% of its CPU seconds"]


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
    rows = {(row["day"], row["policy"]): row for row in done["rows"]}
    assert rows[SECOND, "warm"]["model"] == rows[SECOND, "scratch"]["model"]


def test_bars_of_policies_stand_side_by_side() -> None:
    policies = ("scratch", "warm", "frozen")
    days = [f"2026-03-{day:02}" for day in range(1, 31)]
    rows = [row(day, policy, 0.25).model_copy(update={"low": 0.2, "high": 0.3}) for day in days for policy in policies]
    for shown in (days, days[:1]):
        picture = ElementTree.fromstring(draw_days([row for row in rows if row.day in shown], policies))
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


def test_cases_of_one_user_count_as_one() -> None:
    values = np.random.default_rng(3).random(60).repeat(4)
    gains = pl.DataFrame({"user": np.arange(60).repeat(4), "gain": values})
    low, high = interval(gains)
    alone = interval(gains.with_columns(pl.int_range(pl.len()).alias("user")))
    assert low < alone[0] < values.mean() < alone[1] < high
    assert (high - low) / (alone[1] - alone[0]) == pytest.approx(2, rel=0.2)  # four cases alike are as good as one
