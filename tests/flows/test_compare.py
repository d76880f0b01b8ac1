"""Several models on the same folds: one table with paired differences, one page that works alone, nothing done twice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from markupsafe import escape
from typer.testing import CliRunner

from flows.cli import app
from flows.contenders import contenders_of
from flows.reports.comparison import Row, Total, describe_difference, in_order, table_of, totals_of
from flows.reports.comparison_page import chart_data, page_of
from flows.settings.settings import Data, resolve
from modeling.evaluation.metrics import gains_of
from modeling.evaluation.rank_table import RankTable, read_ranks
from schemas.errors import InputError

LITTLE = ("training.epochs=1", "training.tokens_per_step=64", "training.threads=1", "body.dim=16", "body.num_layers=1",
          "evaluation.baselines=[popularity, markov]")  # fmt: skip
WIDE, WILD = "default+body.dim=32", "default+training.learning_rate=1e30"
FOLDS = ["2026-03-04", "2026-03-05"]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def compare(shop: Path, root: Path, *more: str) -> dict[str, Any]:
    changes = [word for change in LITTLE for word in ("--set", change)]
    given = ["demo", "--source", str(shop), "--root", str(root), *changes, "--json", *more]
    done = CliRunner().invoke(app, ["compare", *given], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    summary: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    return summary | {"output": done.output}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def done(shop: Path, root: Path) -> dict[str, Any]:
    """The default, a preset, a wider one, and one that diverges, on two days."""
    return compare(shop, root, "--presets", f"default,gru4rec,{WIDE},{WILD}", "--folds", "2")


def test_all_are_measured_on_the_same_cases_of_every_fold(done: dict[str, Any]) -> None:
    assert done["folds"] == FOLDS
    names = ["default", "popularity", "markov", "gru4rec", WIDE]
    assert [(row["fold"], row["name"]) for row in done["rows"]] == [(fold, name) for fold in FOLDS for name in names]
    for fold in FOLDS:
        assert len({row["cases"] for row in done["rows"] if row["fold"] == fold}) == 1
    assert done["settings"][WIDE]["body.dim"] == "32" and done["settings"]["default"]["body.dim"] == "16"
    assert done["settings"]["gru4rec"]["body.name"] == "gru4rec"
    trained = [row for row in done["rows"] if not row["baseline"]]
    assert len({row["model"] for row in trained}) == len(trained) == 6


def test_one_that_diverges_is_left_out_and_named(done: dict[str, Any]) -> None:
    assert list(done["left_out"]) == [WILD] and done["left_out"][WILD].startswith(FOLDS[0])
    assert f"Warning: {WILD} is left out" in done["output"]


def test_totals_are_those_of_the_ranks_that_are_kept(done: dict[str, Any], root: Path) -> None:
    def ranks(name: str) -> pl.DataFrame:
        rows = [row for row in done["rows"] if row["name"] == name]
        return pl.concat(read_ranks(root / row["evaluation"], row["scorer"]) for row in rows)

    def gains(name: str) -> np.ndarray:
        return gains_of("ndcg@20", torch.from_numpy(ranks(name)["rank"].to_numpy(writable=True))).numpy()

    totals = {total["name"]: total for total in done["totals"]}
    assert next(iter(totals)) == "default" and "differences" in totals["default"]
    for name, total in totals.items():
        assert total["metrics"]["ndcg@20"] == pytest.approx(gains(name).mean())
        low, high = total["intervals"]["ndcg@20"]
        assert low < total["metrics"]["ndcg@20"] < high
        if name != "default":
            change, low, high = total["differences"]["ndcg@20"]
            assert change == pytest.approx((gains(name) - gains("default")).mean())
            assert low <= change <= high
    assert not totals["default"]["differences"]
    for metric in ("catalog_coverage@20", "mean_inv_user_freq@20", "serendipity@20", "avg_rec_popularity@20"):
        values = [row["metrics"][metric] for row in done["rows"] if row["name"] == "markov"]
        assert min(values) <= totals["markov"]["metrics"][metric] <= max(values)
    assert totals["popularity"]["cpu_seconds"] is not None and totals["gru4rec"]["cpu_seconds"] is not None


def test_run_again_it_does_nothing_and_one_more_fold_trains_only_that(
    done: dict[str, Any], shop: Path, root: Path
) -> None:
    models = sorted((root / "models").iterdir())
    again = compare(shop, root, "--presets", f"default,gru4rec,{WIDE}", "--folds", "2")
    assert sorted((root / "models").iterdir()) == models
    assert again["rows"] == done["rows"]
    assert compare(shop, root, "--presets", f"default,gru4rec,{WIDE}", "--folds", "2")["artifact"] == again["artifact"]
    old = done["rows"][0]["model"]
    more = compare(shop, root, "--presets", f"default,{old}", "--folds", "1")
    assert sorted((root / "models").iterdir()) == models, (
        "the newest fold was measured before, and a model is not trained"
    )
    of_old = next(row for row in more["rows"] if row["name"] == old)
    assert (of_old["model"], of_old["cpu_seconds"]) == (old, 0.0) and not more["warnings"]
    newest = next(row["model"] for row in done["rows"] if row["name"] == "gru4rec" and row["fold"] == FOLDS[1])
    leaks = compare(shop, root, "--presets", f"default,{newest}", "--folds", "2")
    assert leaks["warnings"] == [f"{newest} learned from {FOLDS[0]}, on which it is tested: its metrics are too good."]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "--presets names nothing to compare. Known: default, bert4rec"),
        (["--presets", "default,esasrek"], "Did you mean 'esasrec'"),
        (["--presets", "gru4rec,gru4rec"], "'gru4rec' is named twice"),
        (["--presets", "default+body.dimm=3"], "Did you mean 'dim'"),
        (["--presets", "default+evaluation.filter_seen=true"], "the same for all that are compared"),
        (["--presets", "default+dataset.split=day"], "the same for all that are compared"),
        (["--presets", "default,markov"], "'markov' is a baseline"),
        (
            ["--presets", "default+dim"],
            "Unknown name in --presets 'default+dim'. Did you mean 'default'? Known: NAME+KEY=VALUE",
        ),
        (["--presets", "models/12"], "'models/12' is not there"),
        (["--presets", "default", "--folds", "9"], "9 folds of 1 day and a day to train on"),
        (["--presets", "default+training.start_from=champion"], "may have learned from the days of the folds"),
        (["--presets", WILD, "--folds", "1"], "the first, with which the rest are compared, has diverged"),
        (["--presets", "default", "--dataset", "globo"], "Two datasets: 'demo', and --dataset 'globo'"),
    ],
)
def test_what_cannot_be_compared_is_refused(shop: Path, root: Path, more: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        compare(shop, root, *more)
    assert words in str(error.value)


def test_lists_and_signs_stay_in_the_values_of_a_contender(shop: Path) -> None:
    settings = resolve(Data(dataset="demo", source=str(shop)))
    named = "default+inputs.features=[category, price]+training.learning_rate=1.0e+1, gru4rec"
    named += ",default + heads={next_item: {bias: true}}"
    first, second, third = contenders_of(named, settings)
    made = first.settings(settings)
    assert made.model.inputs.features == ("category", "price") and made.training.learning_rate == 10
    assert (second.name, second.settings(settings).model.body.name) == ("gru4rec", "gru4rec")
    assert third.settings(settings).model.heads["next_item"].options == {"bias": True}


def test_histories_have_one_fold(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,position\n"
        + "".join(f"u{user},i{(user + step) % 7},{step}\n" for user in range(30) for step in range(5))
    )
    (tmp_path / "paths.yaml").write_text(
        "name: paths\nevents:\n  path: events.csv\n  columns: {user_id: user_id, item_id: item_id, position: position}\n"
        "sessions: {rule: history}\nsplit: leave_one_out\n"
    )
    changes = [word for change in LITTLE for word in ("--set", change)]
    given = [str(tmp_path / "paths.yaml"), "--source", str(tmp_path), "--root", str(tmp_path / "root"), *changes]
    words = ["compare", *given, "--presets", f"default,{WIDE}", "--json"]
    ran = CliRunner().invoke(app, words, catch_exceptions=False)
    facts = json.loads(ran.output.splitlines()[-1])
    assert facts["folds"] == ["leave_one_out"] and {row["cases"] for row in facts["rows"]} == {30}
    with pytest.raises(InputError, match="histories have no days"):
        CliRunner().invoke(app, [*words, "--folds", "2"], catch_exceptions=False)


def row(name: str, fold: str, root: Path, ranks: list[float], users: list[str]) -> Row:
    """A row whose ranks are written below `root`."""
    evaluation = f"evaluations/{len(list(root.glob('evaluations/*')))}"
    (root / evaluation).mkdir(parents=True)
    about = {"history_length": 1, "target_popularity": 1, "target_age_days": None, "returning": None}
    table = RankTable(
        pl.DataFrame({"case": range(len(ranks)), "user": users, **about}, schema_overrides={"target_age_days": pl.Float64,
                     "returning": pl.Boolean}),
        {name: np.array(ranks)},
    )  # fmt: skip
    table.write(root / evaluation / "ranks.parquet")
    more: dict[str, Any] = {"model": "models/1", "evaluation": evaluation, "cases": len(ranks)}
    return Row(name=name, fold=fold, scorer=name, cpu_seconds=1.0, metrics={"gini_index@2": 0.5}, **more)


def test_differences_are_paired_and_cases_that_one_lacks_do_not_count(tmp_path: Path) -> None:
    users = [f"u{number}" for number in range(40)]
    rows = [
        row("a", "1", tmp_path, [3.0] * 40, users),
        row("b", "1", tmp_path, [1.0] * 39, users[:39]),
        row("a", "2", tmp_path, [1.0, 3.0] * 20, users),
        row("b", "2", tmp_path, [1.0, 3.0] * 20, users),
    ]
    measured, (first, second) = totals_of(rows, tmp_path, (2,))
    assert [row.cases for row in measured] == [39, 39, 40, 40]
    assert (first.cases, first.metrics["recall@2"]) == (79, pytest.approx(20 / 79))
    assert second.metrics["recall@2"] == pytest.approx(59 / 79)
    mean, low, high = second.differences["recall@2"]
    assert mean == pytest.approx(39 / 79) and 0.4 < low < mean < high < 0.6, "each user gains in one of two cases"
    assert describe_difference(second, "recall@2")[1] == "better"
    assert second.metrics["gini_index@2"] == 0.5
    assert [total.name for total in in_order([first, second], "recall@2")] == ["b", "a"]
    assert "| b | 0.7468 (" in table_of([first, second], "recall@2")


def test_cases_of_one_user_count_as_one(tmp_path: Path) -> None:
    ranks = np.random.default_rng(3).integers(1, 5, 60).repeat(4).astype(float).tolist()
    together = [row("a", "1", tmp_path, ranks, [f"u{number}" for number in np.arange(60).repeat(4)])]
    apart = [row("a", "1", tmp_path, ranks, [f"u{number}" for number in range(240)])]
    widths = []
    for rows in (together, apart):
        _, (total,) = totals_of(rows, tmp_path, (2,))
        low, high = total.intervals["ndcg@2"]
        assert low < (total.metrics["ndcg@2"] or 0) < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.2), "four cases alike are as good as one"


def test_folds_without_a_case_leave_their_metrics_undefined(tmp_path: Path) -> None:
    rows = [row("a", "1", tmp_path, [], []), row("b", "1", tmp_path, [], [])]
    measured, totals = totals_of(rows, tmp_path, (2,))
    assert [total.metrics.get("recall@2") for total in totals] == [None, None]
    assert totals[0].intervals == {} and measured[0].cases == 0
    assert "| a | - |" in table_of(totals, "recall@2")


EVIL = "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"


def evil_page() -> str:
    metrics = {"ndcg@20": 0.5, "recall@20": 0.6, "serendipity@20": 0.01}
    rows = [
        Row(name=name, fold=fold, baseline=name == "markov", scorer=name, model="models/1", evaluation="evaluations/1",
            cases=9, cpu_seconds=3.0, metrics={key: value * scale for key, value in metrics.items()})
        for name, scale in ((EVIL, 1.0), ("b", 0.8), ("markov", 0.5))
        for fold in FOLDS
    ]  # fmt: skip
    bounds = {"intervals": {"ndcg@20": (0.4, 0.6)}}
    totals = [
        Total(name=name, baseline=name == "markov", cases=18, cpu_seconds=3.0, metrics=metrics, **bounds)
        for name in (EVIL, "b", "markov")
    ]
    facts = {
        "metric": "ndcg@20",
        "folds": FOLDS,
        "settings": {EVIL: {"body.name": EVIL}, "b": {"body.name": "gru4rec"}},
        "warnings": [EVIL],
        "left_out": {EVIL: EVIL},
    }
    return page_of(EVIL, facts, rows, totals)


def test_names_on_the_page_are_never_code_and_nothing_is_loaded() -> None:
    page = evil_page()
    before, plotly, after = re.split(r"<script>(?=/\*\*)|</script>\n<script>\n\"use strict\"", page, maxsplit=2)
    assert "plotly.js" in plotly[:200]
    own = before + after
    assert EVIL not in own and str(escape(EVIL)) in own
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', before)[1])  # type: ignore[index]
    assert data["means"][0]["name"] == EVIL, "the name is as it was given"
    assert own.count("<script") == 1 and "<img" not in own, "the last script's own tag went with the split"
    assert not re.search(r"<[a-z]+ [^>]*\b(src|href|action)=", own)
    assert "default-src 'none'" in before and "form-action 'none'" in before


def test_settings_that_differ_can_colour_the_chart() -> None:
    row_of_a = Row(
        name="a", fold="1", scorer="a", model="m", evaluation="e", cases=1, cpu_seconds=None, metrics={"x@2": 1.0}
    )
    settings = {"a": {"body.dim": "16", "loss.name": "bce"}, "b": {"body.dim": "32", "loss.name": "bce"}}
    data = chart_data("x@2", [row_of_a], [], settings)
    assert data["settings"] == {"body.dim": {"a": "16", "b": "32"}}
    assert data["metrics"] == [["x@2", "x@2"], ["cpu_seconds", "CPU seconds of training"]]


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize(
    ("x", "y", "color"), [("cpu_seconds", "ndcg@20", "name"), ("recall@20", "serendipity@20", "body.name")]
)
def test_in_a_browser_the_chart_draws_what_is_chosen(tmp_path: Path, x: str, y: str, color: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(evil_page(), encoding="utf-8")
    dom = dump(f"{page.as_uri()}#x={x}&y={y}&color={color}", tmp_path / "profile")
    assert "<title>Overnight: &lt;/script&gt;" in dom, "nothing in the data ran"
    points = re.findall(r'<path class="point"', dom)
    assert len(points) == 9, "six points of folds, three means"
    legend = re.findall(r'class="legendtext"[^>]*>([^<]*)', dom)
    assert len(legend) == 3 and ("gru4rec" in legend) == (color == "body.name")
    chosen = re.findall(r"<option[^>]*>", dom)
    assert chosen and f">{x if x != 'cpu_seconds' else 'CPU seconds of training'}</text>" in dom
    assert "cloud" not in "".join(re.findall(r'class="modebar-btn"[^>]*>', dom)).lower()


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")
def test_in_a_browser_another_choice_draws_anew(tmp_path: Path) -> None:
    choose = """form.y.value = "recall@20"; form.color.value = "kind"; form.folds.checked = false;
        form.dispatchEvent(new Event("change")); document.title = location.hash"""
    page = tmp_path / "page.html"
    page.write_text(evil_page() + f"<script>{choose}</script>", encoding="utf-8")
    dom = dump(page.as_uri(), tmp_path / "profile")
    assert "<title>#x=cpu_seconds&amp;y=recall%4020&amp;color=kind</title>" in dom
    assert len(re.findall(r'<path class="point"', dom)) == 3
    assert set(re.findall(r'class="legendtext"[^>]*>([^<]*)', dom)) == {"model", "baseline"}


def dump(address: str, profile: Path) -> str:
    """What a page has become after its scripts ran."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--virtual-time-budget=20000"]
    done = subprocess.run([str(BROWSER), *words, "--dump-dom", address], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    return done.stdout
