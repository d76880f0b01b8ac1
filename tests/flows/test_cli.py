"""The terminal: what it prints, what it answers to mistakes, its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from flows.cli import app
from modeling.config import EvaluationConfig
from tests.flows.conftest import QUICK, overnight, overnight_here, summary_of
from tests.slow import slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["retrain", "--dataset", "demmo"], ["demmo", "Did you mean 'demo'", "globo"]),
        (["prepare", "--dataset", "demo"], ["Where are the files of 'demo'", "--source"]),
        (["prepare", "--source", "/nowhere"], ["/nowhere"]),
        (["prepare", "--source", "/tmp", "--set", "boddy.dim=3"], ["boddy.dim", "Did you mean 'body.dim'"]),
        (["prepare", "--source", "/tmp", "--set", "body.dim"], ["KEY=VALUE"]),
        (["prepare", "--source", "/tmp", "--set", "body.dim=many"], ["dim", "many"]),
        (["prepare", "--source", "/tmp", "--preset", "esasrek"], ["esasrek", "Did you mean 'esasrec'"]),
        (["prepare", "--source", "/tmp", "--set", "body=gru4rec", "--set", "objective=masked"], ["gru4rec", "causal"]),
        (["prepare", "--source", "/tmp", "--set", "promotion.metric=auc"], ["auc", "ndcg@20"]),
        (["prepare", "--source", "/tmp", "--set", "dataset.sessions.gap=3"], ["sessions.gap", "gap_minutes"]),
        (
            ["recommend", "lamp-1", "--root", "/tmp/overnight-has-nothing-here"],
            ["Nothing is in service for 'demo'", "overnight retrain"],
        ),
        (["recommend", "lamp-1", "--model", "sessions/12"], ["'sessions/12' is no model", "models/1f2e"]),
        (["rollback", "--dataset", "demo"], ["Nothing is in service for 'demo'", "In service: nothing"]),
        (["promote", "models/12", "--dataset", "demo"], ["'models/12' is not there"]),
        (["prepare", "--source", "/tmp", "--set", "evaluation.baselines=[popularty]"], ["Did you mean 'popularity'"]),
        (["prepare", "--source", "/tmp", "--set", "evaluation.cutoffs=[0,20]"], ["evaluation.cutoffs.0", "got 0"]),
        (["prepare", "--source", "/tmp", "--set", "evaluation.cutoffs=[20,20]"], ["cutoffs: 20 is named twice"]),
        (["prepare", "--source", "/tmp", "--set", "promotion.metric=ndgc@20"], ["Did you mean 'ndcg@20'"]),
        (["prepare", "--source", "/tmp", "--set", "promotion.min_gain=.nan"], ["promotion.min_gain", "finite"]),
        (["recommend"], ["Give the items of a session"]),
        (
            ["recommend", "--from", "histories.parquet"],
            ["--from FILE_OR_FOLDER (or --everyone) and --out FOLDER go together"],
        ),
        (["recommend", "lamp-1", "--from", "a.parquet", "--out", "b"], ["one of them"]),
        (["train", "--source", "SHOP", "--set", "body=bert5"], ["bert5", "Did you mean 'bert'"]),
        (["recommend", "lamp-1", "--new-items", "/nowhere.csv"], ["/nowhere.csv", "no such file"]),
        (["prepare", "--source", "SHOP", "--until", "2020-01-01"], ["2020-01-01"]),
        (["prepare", "--source", "SHOP", "--engine", "gpuu"], ["engine", "'cpu', 'gpu' or 'nvtabular'", "gpuu"]),
        (["train", "--source", "SHOP", "--workers", "2", "--scheduler", "tcp://127.0.0.1:9"], ["not both"]),
        (["prepare", "--source", "SHOP", "--redo", "2024-05-02.."], ["'2024-05-02..'", "2024-05-01..2024-05-03"]),
        (["prepare", "--source", "SHOP", "--redo", "5 May"], ["'5 May'", "give 2024-05-01"]),
        (["prepare", "--source", "SHOP", "--redo", "2024-02-30"], ["'2024-02-30'", "give 2024-05-01"]),
        (["prepare", "--source", "SHOP", "--redo", "2024-05-03..2024-05-01"], ["last day lies before the first"]),
        (["prepare", "--source", "SHOP", "--root", __file__], ["--root", "test_cli.py", "it is a file"]),
        (["retrain", "--source", "SHOP", "--root", "/proc/overnight"], ["--root", "/proc/overnight", "not a folder"]),
        (["prepare", "--source", "SHOP", "--set", "dataset.steps=[drop_repeat]"], ["Did you mean 'drop_repeats'"]),
    ],
)
def test_a_mistake_ends_with_one_line_and_code_2(
    arguments: list[str], words: list[str], shop: Path, tmp_path: Path
) -> None:
    place = [] if "--root" in arguments or arguments == ["recommend"] else ["--root", str(tmp_path)]
    done = overnight_here(*[str(shop) if word == "SHOP" else word for word in arguments], *place)
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("overnight: "), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in line, line


def test_a_mistake_ends_a_process_with_code_2(tmp_path: Path) -> None:
    done = overnight("prepare", "--source", "/nowhere", "--root", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("overnight: ") and done.stderr.count("\n") == 1, done.stderr


def test_help_answers() -> None:
    done = CliRunner().invoke(app, ["--help"])
    commands = [
        "retrain",
        "prepare",
        "profile",
        "train",
        "evaluate",
        "recommend",
        "promote",
        "rollback",
        "simulate",
        "datasets",
        "steps",
        "models",
        "serve",
    ]
    assert done.exit_code == 0
    for command in commands:
        assert command in done.output
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_datasets_lists_where_to_get_them_and_their_terms() -> None:
    found = json.loads(CliRunner().invoke(app, ["datasets", "--json"]).output.splitlines()[-1])
    assert {"beauty", "demo", "globo"} <= found.keys()
    assert all(entry["obtain"] and entry["terms"] for entry in found.values())


def test_steps_lists_what_a_dataset_can_name() -> None:
    done = CliRunner().invoke(app, ["steps", "--json"])
    found = json.loads(done.output.splitlines()[-1])
    assert found.keys() == {"steps", "checks", "features"}
    names = {kind: {one["name"]: one for one in offered} for kind, offered in found.items()}
    assert {"drop_repeats", "join_items"} <= names["steps"].keys()
    options = {option["name"]: option for option in names["features"]["category"]["options"]}
    assert options["min_count"]["default"] == "1" and options["min_count"]["description"]
    assert "      min_count (integer = 1)  Rarer values become unknown." in done.output.splitlines()


def test_models_lists_what_a_model_can_be_put_together_from() -> None:
    done = CliRunner().invoke(app, ["models", "--json"])
    found = json.loads(done.output.splitlines()[-1])
    assert list(found) == ["presets", "bodies", "objectives", "losses", "heads", "baselines"]
    names = {kind: {one["name"]: one for one in offered} for kind, offered in found.items()}
    assert all(one["summary"] for offered in found.values() for one in offered)
    assert "arXiv:" in names["presets"]["esasrec"]["paper"] and names["presets"]["esasrec"]["deviates"]
    assert names["bodies"]["gru4rec"]["objectives"] == ["causal"]
    assert "masked" in names["bodies"]["bert4rec"]["objectives"]
    assert names["losses"]["gbce"]["scores"] == "sampled items"
    assert {"next_item", "binary", "regression"} <= names["heads"].keys()
    for line in (
        "    num_layers (integer = 2)  Blocks of the body.",
        "    negatives.count (integer = 256)  Drawn for each group of predictions.",
        "      ff_multiple (integer = 4)  Width of the feed-forward in widths.",
        "      objectives: causal",
        "    weight (number = 1)  Of its loss in the sum.",
    ):
        assert line in done.output.splitlines(), line


def test_prepare_prints_where_the_rows_went_and_what_drifted(shop: Path, tmp_path: Path) -> None:
    done = overnight_here(
        "prepare", "--source", shop, "--root", tmp_path, "--set", "dataset.profile.warn_above=1e-9", "--json"
    )
    facts = summary_of(done)
    for words in (
        "rows in",
        "quarantined: item_id_null",
        "dropped: drop_repeats",
        "still open",
        "session lengths",
        "encode",
    ):
        assert words in done.stdout
    assert f"{facts['rows_in']:,}" in done.stdout
    assert all(f"Warning, {facts['test_day']}: {warning}" in done.stdout for warning in facts["warnings"])
    page = next(line for line in done.stdout.splitlines() if line.startswith("The last day at a glance: "))
    assert Path(page.partition(": ")[2]).is_file()
    assert facts["profile"] == page.partition(": ")[2]
    assert len(list(tmp_path.glob("profiles/*/profile.html"))) == 1, "of the newest day alone"


def test_the_page_of_any_day_can_be_had(shop: Path, root: Path) -> None:
    given = ["profile", "--source", shop, "--root", root, "--json"]
    newest = summary_of(overnight_here(*given))
    first = overnight_here(*given, "--day", "2026-03-02")
    day = summary_of(first)
    assert day["day"] == "2026-03-02" and day["page"] in first.stdout.splitlines()
    assert "2026-03-02" in Path(day["page"]).read_text() and day["page"] != newest["page"]
    missing = overnight_here(*given, "--day", "2020-01-01")
    assert missing.returncode == 2 and "2026-03-02 to 2026-03-05" in missing.stderr, missing.stderr


@slow  # tests/preprocessing/test_workers.py compares the rows, tests/test_readme.py runs the command
def test_workers_prepare_the_same_sessions(shop: Path, root: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed: pip install distributed")
    done = overnight("prepare", "--source", shop, "--root", tmp_path, "--workers", "2", "--json")
    facts, alone = summary_of(done), summary_of(overnight_here("prepare", "--source", shop, "--root", root, "--json"))
    assert re.search(r"clean: .*1 of 4 \(25%\)", done.stdout), done.stdout
    changing = ("seconds", "folder", "profile")
    assert {key: facts[key] for key in facts if key not in changing} == {
        key: alone[key] for key in alone if key not in changing
    }


def test_simulate_prepare_train_evaluate_recommend(shop: Path, root: Path) -> None:
    common = ["--source", shop, "--root", root, *QUICK, "--json"]
    sessions = summary_of(overnight_here("prepare", *common))
    gone = sum(sessions["quarantined"].values()) + sum(sessions["dropped"].values()) + sessions["still_open"]
    assert sessions["rows_in"] + sessions["carried_in"] == sessions["events"] + gone
    assert {"sessions", "items", "seconds", "folder", "drift", "warnings"} <= sessions.keys()
    trained = summary_of(overnight_here("train", *common))
    assert trained["tokens_per_cpu_second"] > 0
    measured = summary_of(overnight_here("evaluate", *common))
    assert {"sasrec", *EvaluationConfig().baselines} == measured["metrics"].keys()
    assert all(f"{name}@{k}" in measured["metrics"]["sasrec"] for name in ("ndcg", "map", "mrr") for k in (5, 10, 20))
    item = json.loads((Path(measured["folder"]) / "examples.json").read_text())[0]["recommended"][0]
    chosen = ["--model", trained["artifact"], "--root", root]
    best = summary_of(overnight_here("recommend", item, "never-seen", *chosen, "-k", "4", "--json", "--hide-seen"))
    assert len(best["recommended"]) == 4
    assert best["unknown"] == ["never-seen"]
    assert item not in best["recommended"] and not best["keep_seen"]
    again = summary_of(overnight_here("evaluate", *common))
    assert again == measured
    best = summary_of(overnight_here("recommend", item, *chosen, "--json"))
    assert best["keep_seen"] and not measured["filter_seen"], "what was evaluated is what is recommended"
    hidden = overnight_here(
        "evaluate", *common, "--set", "evaluation.filter_seen=true", "--set", "evaluation.baselines=[]"
    )
    assert f"{measured['cases']:,} of" in hidden.stdout and "count as misses" in " ".join(hidden.stdout.split())
    best = summary_of(overnight_here("recommend", item, *chosen, "-k", "100000", "--json"))
    assert not best["keep_seen"] and item not in best["recommended"]


def test_a_preset_lies_under_what_is_set(shop: Path, root: Path) -> None:
    done = overnight_here(
        "train", "--source", shop, "--root", root, *QUICK, "--preset", "esasrec", "--set", "body.num_layers=1", "--json"
    )
    trained = summary_of(done)
    assert "Preset esasrec: " in done.stdout and trained["preset"] == "esasrec"
    config = json.loads((Path(trained["folder"]) / "config.json").read_text())["model"]
    assert (config["body"]["name"], config["body"]["num_layers"], config["body"]["dropout"]) == ("ligr", 1, 0.1)
    assert config["loss"]["name"] == "sampled_softmax"


def test_recommend_takes_new_items_and_tells_labels(shop: Path, root: Path, tmp_path: Path) -> None:
    dataset = ["--dataset", "demo_purchase", "--root", root]
    model = summary_of(
        overnight_here("train", *dataset, "--source", shop, *QUICK, "--set", "inputs.item_tower=sum", "--json")
    )
    known = pl.read_parquet(shop / "items.parquet").select("item_id", "category", "brand", "price")
    table = pl.concat([known.head(1).with_columns(item_id=pl.lit("lamp-new")), known])
    table.write_csv(tmp_path / "new.csv")
    table.write_parquet(tmp_path / "new.parquet")
    item = pl.read_parquet(Path(model["folder"]) / "items.parquet")["value"][0]
    catalogue = ["recommend", item, *map(str, dataset), "--model", model["artifact"], "-k", "10000", "--json"]

    def recommended(*more: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, [*catalogue, *more])
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
        return found

    before = recommended()
    assert 0 < before["predicted"]["bought"] < 1
    after = [recommended("--new-items", str(tmp_path / f"new.{end}")) for end in ("csv", "parquet")]
    assert after[0] == after[1]
    assert after[0]["added"] + after[0]["already_known"] == len(table)
    in_model = pl.read_parquet(Path(model["folder"]) / "items.parquet")["value"]  # some without a training event
    newcomers = set(after[0]["recommended"]) - set(before["recommended"]) - set(in_model)
    assert "lamp-new" in newcomers and len(newcomers) == after[0]["added"]
    assert after[0]["predicted"] == before["predicted"]
