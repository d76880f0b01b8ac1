"""The terminal: what it prints, what it answers to mistakes, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tests.flows.conftest import QUICK, overnight, summary_of


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["retrain", "--dataset", "demmo"], ["demmo", "Did you mean 'demo'", "globo"]),
        (["prepare", "--dataset", "demo"], ["Where are the files of 'demo'", "--source"]),
        (["prepare", "--source", "/nowhere"], ["/nowhere"]),
        (["prepare", "--source", "/tmp", "--set", "model.dmi=3"], ["model.dmi", "Did you mean 'model.dim'"]),
        (["prepare", "--source", "/tmp", "--set", "model.dim"], ["KEY=VALUE"]),
        (["prepare", "--source", "/tmp", "--set", "model.dim=many"], ["dim", "many"]),
        (["prepare", "--source", "/tmp", "--set", "model.num_heads=3"], ["num_heads 3 does not divide dim 64"]),
        (["prepare", "--source", "/tmp", "--set", "promotion.metric=auc"], ["auc", "ndcg@20"]),
        (["prepare", "--source", "/tmp", "--set", "dataset.sessions.gap=3"], ["sessions.gap", "gap_minutes"]),
        (["recommend", "lamp-1", "--root", "/tmp/overnight-has-nothing-here"], ["no model", "overnight retrain"]),
        (["recommend"], ["Give the items of a session"]),
        (["train", "--source", "SHOP", "--set", "model.body=bert5"], ["bert5", "Known: gpt2, sasrec"]),
        (["prepare", "--source", "SHOP", "--until", "2020-01-01"], ["2020-01-01"]),
        (["prepare", "--source", "SHOP", "--set", "dataset.steps=[drop_repeat]"], ["Did you mean 'drop_repeats'"]),
    ],
)
def test_a_mistake_ends_with_one_line_and_code_2(
    arguments: list[str], words: list[str], shop: Path, tmp_path: Path
) -> None:
    place = [] if "--root" in arguments or arguments == ["recommend"] else ["--root", str(tmp_path)]
    done = overnight(*[str(shop) if word == "SHOP" else word for word in arguments], *place)
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("overnight: "), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in line, line


def test_help_answers() -> None:
    done = CliRunner().invoke(app, ["--help"])
    commands = ["retrain", "prepare", "train", "evaluate", "recommend", "simulate", "datasets", "serve"]
    assert done.exit_code == 0
    for command in commands:
        assert command in done.output
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_datasets_lists_where_to_get_them_and_their_terms() -> None:
    found = json.loads(CliRunner().invoke(app, ["datasets", "--json"]).output.splitlines()[-1])
    assert {"beauty", "demo", "globo"} <= found.keys()
    assert all(entry["obtain"] and entry["terms"] for entry in found.values())


def test_simulate_prepare_train_evaluate_recommend(shop: Path, root: Path) -> None:
    common = ["--source", shop, "--root", root, *QUICK, "--json"]
    sessions = summary_of(overnight("prepare", *common))
    out = sessions["events"] + sum(sessions["quarantined"].values()) + sum(sessions["dropped"].values())
    assert sessions["rows_in"] == out
    assert {"sessions", "items", "seconds", "folder"} <= sessions.keys()
    trained = summary_of(overnight("train", *common))
    assert trained["tokens_per_cpu_second"] > 0
    measured = summary_of(overnight("evaluate", *common))
    assert {"sasrec", "popularity", "last_day_popularity", "item_knn", "markov"} == measured["metrics"].keys()
    assert all(f"{name}@{k}" in measured["metrics"]["sasrec"] for name in ("ndcg", "map", "mrr") for k in (5, 10, 20))
    item = json.loads((Path(measured["folder"]) / "examples.json").read_text())[0]["recommended"][0]
    best = summary_of(overnight("recommend", item, "never-seen", "--root", root, "-k", "4", "--json"))
    assert len(best["recommended"]) == 4
    assert best["unknown"] == ["never-seen"]
    assert item not in best["recommended"]
    again = summary_of(overnight("evaluate", *common))
    assert again == measured
