"""Settings searched for: chosen by validation, gone on with by the same command, written into the dataset's file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from typer.testing import CliRunner

from flows.behind import CHANCE, CURVES, is_behind
from flows.cli import app
from flows.experiments import read_budget
from flows.reports.tuning import Trial, best_of, in_order, summary_of, table_of
from flows.search import BehindError, _judge, duration
from flows.settings.layers import read_changes
from flows.settings.settings import Data, resolve
from flows.settings.space import Beginning
from flows.study import ask, opened, plan, tell
from flows.tune import TUNING, tune
from modeling.presets.by_shape import Shape
from schemas.dataset import SHIPPED
from schemas.errors import InputError
from schemas.progress import TrainingProgress

HOURS = "10h"  # what no test takes: the number of trials ends these searches
LITTLE = ("training.epochs=2", "training.tokens_per_step=64", "training.threads=1", "body.dim=16", "body.num_layers=1",
          "body.num_heads=2", "evaluation.baselines=[popularity]")  # fmt: skip
SLOW = "defaults:                          # settings that suit these events\n  # a rate that leads nowhere\n"


def run(shop: Path, root: Path, dataset: Path | str, *more: str) -> dict[str, Any]:
    changes = [word for change in LITTLE for word in ("--set", change)]
    given = [str(dataset), "--source", str(shop), "--root", str(root), *changes, "--json", *more]
    done = CliRunner().invoke(app, ["tune", *given], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    summary: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    return summary | {"output": done.output}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a dataset whose own learning rate leads nowhere."""
    path = tmp_path_factory.mktemp("tune")
    text = (SHIPPED / "demo.yaml").read_text().partition("defaults:")[0].replace("name: demo", "name: own-shop")
    (path / "shop.yaml").write_text(text + SLOW + "  training: {learning_rate: 0.0000001}\n")
    return path


@pytest.fixture(scope="module")
def searched(shop: Path, folder: Path) -> dict[str, Any]:
    return run(shop, folder / "root", folder / "shop.yaml", "--budget", HOURS, "--trials", "3", "--presets", "gru4rec")


def test_the_default_is_first_then_a_preset_then_steps_from_the_best(searched: dict[str, Any]) -> None:
    first, second, third = searched["trials"]
    assert (first["number"], first["preset"], first["changes"], first["state"]) == (0, "default", {}, "COMPLETE")
    assert (second["preset"], second["changes"]) == ("gru4rec", {})
    assert third["preset"] in ("default", "gru4rec") and 1 <= len(third["changes"]) <= 2
    assert {trial["metric"] for trial in searched["trials"]} == {"ndcg@20"}
    assert all(trial["seconds"] > 0 and trial["cases"] > 0 for trial in searched["trials"])
    assert {trial["on"] for trial in searched["trials"]} == {"2026-03-04"}, "the test is 2026-03-05"
    assert "held out whole" in searched["output"] and "ndcg@20 0." in searched["summary"]


def test_the_test_is_not_looked_at_and_no_model_is_kept(searched: dict[str, Any], folder: Path) -> None:
    assert not (folder / "root" / "evaluations").exists() and not (folder / "root" / "models").exists()
    tuned = Path(searched["folder"])
    assert tuned.parent == folder / "root" / TUNING
    assert sorted(path.name for path in tuned.iterdir()) == ["lock", "study.db", "table.md"]
    assert (tuned / "table.md").read_text().startswith("| trial | validation |")
    verified = CliRunner().invoke(app, ["verify", "--root", str(folder / "root")], catch_exceptions=False)
    assert verified.exit_code == 0, verified.output


def test_the_same_command_goes_on_and_what_it_wrote_trains_the_best(
    searched: dict[str, Any], shop: Path, folder: Path
) -> None:
    file, root = folder / "shop.yaml", folder / "root"
    before = file.read_text()
    same = run(shop, root, file, "--budget", HOURS, "--trials", "3", "--presets", "gru4rec")
    assert same["trials"] == searched["trials"]
    more = run(shop, root, file, "--budget", HOURS, "--trials", "4", "--presets", "gru4rec", "--write")
    assert more["trials"][:3] == searched["trials"] and len(more["trials"]) == 4
    best = max(more["trials"], key=lambda trial: trial["score"] or 0.0)
    assert best["value"] > more["trials"][0]["value"], "the default's rate leads nowhere"
    after = file.read_text()
    assert after.startswith(before.partition("defaults:")[0]) and "# a rate that leads nowhere\n" in after
    assert "# Chosen by `overnight tune --budget 10h`, best of 4 trials" in after
    assert yaml.safe_load(after)["defaults"] == more["defaults"] and "threads" not in more["defaults"]["training"]
    words = [
        "evaluate",
        "--dataset",
        str(file),
        "--source",
        str(shop),
        "--root",
        str(root),
        "--set",
        "training.threads=1",
    ]
    held_out = ["--set", f"evaluation.split.until={best['on']}", "--set", "evaluation.baselines=[]", "--json"]
    ran = CliRunner().invoke(app, [*words, *held_out], catch_exceptions=False)
    measured = json.loads(ran.output.splitlines()[-1])
    assert measured["metrics"][measured["model"]]["ndcg@20"] == best["value"]


def test_histories_are_chosen_by_the_last_item_but_one(tmp_path: Path) -> None:
    events = "".join(f"u{user},i{(user + step) % 7},{step}\n" for user in range(30) for step in range(6))
    (tmp_path / "events.csv").write_text("user_id,item_id,position\n" + events)
    (tmp_path / "paths.yaml").write_text(
        "name: paths\nevents:\n  path: events.csv\n  columns: {user_id: user_id, item_id: item_id, position: position}\n"
        "sessions: {rule: history}\nsplit: leave_one_out\n"
    )
    few = ["--presets", "none", "--trials", "2", "--budget", HOURS]
    done = run(tmp_path, tmp_path / "root", tmp_path / "paths.yaml", *few)
    assert [(trial["metric"], trial["on"], trial["cases"]) for trial in done["trials"]] == [("ndcg@20", "", 30)] * 2


def test_a_trial_that_fails_is_a_row(shop: Path, tmp_path: Path) -> None:
    wild = ["--set", "training.learning_rate=1e30", "--presets", "none", "--trials", "2", "--budget", HOURS]
    done = run(shop, tmp_path, "demo", *wild)
    assert "diverged" in done["trials"][0]["error"] and done["trials"][0]["state"] == "FAIL"
    assert len(done["trials"]) == 2 and done["defaults"] == {}
    assert done["summary"].startswith("No trial was trained to its end")


def test_a_search_that_nothing_is_left_for_ends(shop: Path, tmp_path: Path) -> None:
    fixed = ("training.learning_rate=0.01", "loss.name=full_softmax", "loss.label_smoothing=0")
    changes = [word for change in fixed for word in ("--set", change)]
    done = run(shop, tmp_path, "demo", "--presets", "none", "--budget", HOURS, *changes)
    tried = [trial["changes"].get("body.dropout", 0.1) for trial in done["trials"]]
    assert "There is nothing left to try in this space." in done["output"]
    assert len(tried) == len(set(tried)) and set(tried) <= {0.0, 0.1, 0.2, 0.3, 0.4} and len(tried) > 2


def test_a_budget_that_is_over_stops_a_trial_which_goes_on_later(shop: Path, tmp_path: Path) -> None:
    """However slow the machine is: the budget doubles until a trial was begun in it."""
    long = read_changes([*LITTLE, "training.epochs=1000"])[1]
    settings = resolve(Data(dataset="demo", source=str(shop), root=tmp_path), None, long)
    tune(settings, 0.0, ())
    budget, trials = 4.0, list[Trial]()
    while not trials:
        trials = tune(settings, budget, ()).trials
        budget *= 2
    (stopped,) = trials
    assert stopped.stopped and stopped.outcome == "stopped" and stopped.seconds > 0
    spent = stopped.seconds
    while len(trials) == 1:
        trials = tune(settings, spent + budget, ()).trials
        budget *= 2
    assert (trials[1].continues, trials[1].is_default, trials[1].before) == (0, True, spent)
    assert in_order(trials) == [trials[1]], "what was gone on with is one row"
    assert "| 1 | " in table_of(trials) and "stopped" in table_of(trials)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--budget", "30"], "--budget '30': expected a time above zero with its unit, such as 90s, 30m or 1h30m"),
        (["--budget", "0m"], "expected a time above zero"),
        (["--budget", "soon"], "expected a time above zero"),
        (["--presets", "gru5rec"], "Did you mean 'gru4rec'"),
        (["--presets", ","], "--presets names none"),
        (["--write"], "demo came with Overnight"),
        (["--write", "--set", "dataset.sessions.gap_minutes=20"], "--write with --set dataset.sessions.gap_minutes"),
        (["--set", "training.start_from=champion"], "tune compares trainings from scratch"),
        (["--devices", "2"], "tune trains in one process"),
        (["--redo", "2026-03-03"], "tune takes no --redo"),
        (["--set", "body.dim=15"], "does not divide"),
        (["--set", "training.validation_sessions=0"], "validation_sessions"),
    ],
)
def test_what_cannot_be_searched_is_refused(shop: Path, tmp_path: Path, more: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        run(shop, tmp_path, "demo", *more)
    assert words in str(error.value)


def test_budgets_are_read_as_people_write_them() -> None:
    assert [read_budget(text) for text in ("90s", "30m", "1h30m", "1.5h", " 2 m".replace(" ", ""), "5MIN")] == [
        90, 1800, 5400, 5400, 120, 300,
    ]  # fmt: skip
    assert [duration(seconds) for seconds in (45, 750, 10800)] == ["45 s", "12.5 min", "3.0 h"]


SHAPE = Shape(100_000, 2_000, 20_000, False)


def beginnings(*presets: str) -> dict[str, Beginning]:
    made = {
        name: resolve(Data(dataset="demo", source="/tmp"), None if name == "default" else name, {}) for name in presets
    }
    return {name: Beginning.of(settings.model, settings.training, SHAPE, {}) for name, settings in made.items()}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[optuna.Study]:
    with opened(tmp_path / "study", 2) as opened_study:
        yield opened_study


def rows(study: optuna.Study) -> list[Trial]:
    return [Trial.of(trial) for trial in study.trials]


def test_what_a_kill_left_running_is_tried_again_before_anything_else(tmp_path: Path) -> None:
    starts = beginnings("default", "gru4rec")
    with opened(tmp_path, 2) as study:
        plan(study, starts, rows(study))
        killed = ask(study, starts)
        assert killed and killed.user_attrs["start"] == "default"
        killed.set_user_attr("seconds", 3.0)
        with pytest.raises(InputError, match="Another process is at this search"), opened(tmp_path, 2):
            pass
    with opened(tmp_path, 2) as study:
        (left,) = rows(study)
        assert left.stopped and not left.done
        plan(study, starts, rows(study))
        again = ask(study, starts)
        assert again and again.params == killed.params
        tell(again, "COMPLETE", 0.5, metric="ndcg@20", value=0.5, seconds=1.0)
        _, done = rows(study)
        assert (done.continues, done.before, done.start, done.is_default) == (0, 3.0, "default", True)
        plan(study, starts, rows(study))
        other = ask(study, starts)
        assert other and other.user_attrs["start"] == "gru4rec"


def test_what_is_killed_twice_has_failed(tmp_path: Path) -> None:
    starts = beginnings("default", "gru4rec")
    for _ in range(2):
        with opened(tmp_path, 2) as study:
            plan(study, starts, rows(study))
            assert ask(study, starts)
    with opened(tmp_path, 2) as study:
        first, second = rows(study)
        assert first.stopped and second.outcome == "failed" and "killed, twice" in second.error
        plan(study, starts, rows(study))
        third = ask(study, starts)
        assert third and third.user_attrs["preset"] == "gru4rec"


def test_a_study_lies_where_it_was_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "50% of a shop? #1"
    with opened(folder, 2) as study:
        study.ask()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "study.db"]
    (folder / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="cannot be read as a study"), opened(folder, 2):
        pass


def test_settings_that_were_tried_are_not_tried_again(study: optuna.Study) -> None:
    starts = beginnings("default")
    plan(study, starts, rows(study))
    first = ask(study, starts)
    assert first
    tell(first, "COMPLETE", 0.5)
    study.enqueue_trial(first.params)
    assert ask(study, starts) is None
    assert [trial.ignored for trial in rows(study)] == [False, True] and len(in_order(rows(study))) == 1


def progress(epoch: int, gains: Sequence[float], done: int | None = None) -> TrainingProgress:
    about = {"epoch": epoch, "metric": "ndcg@20", "validation": float(np.mean(gains)), "gains": tuple(gains)}
    return TrainingProgress("train", done or 2 * epoch, 9, "validated", **about)


CASES = np.random.default_rng(5).random(60)  # what each adds: a mean of about .5


def test_a_trial_that_is_surely_behind_the_median_is_cut_short_but_not_the_default_nor_one_that_is_done(
    study: optuna.Study,
) -> None:
    for number in range(CURVES):
        trial = study.ask()
        trial.set_user_attr("changes", {})
        for epoch in (1, 2, 3):
            _judge(trial, progress(epoch, CASES * (0.7 + 0.1 * number)), 1.0)
        tell(trial, "COMPLETE", 0.3)
    behind = study.ask()
    _judge(behind, progress(1, 0.5 * CASES), 1.0)  # the first third of a training says little
    _judge(behind, progress(2, 0.5 * CASES, done=9), 1.0)
    with pytest.raises(BehindError):
        _judge(behind, progress(2, 0.5 * CASES), 1.0)
    tell(behind, "PRUNED", changes={})
    ahead = study.ask()
    for epoch in (1, 2, 3):
        _judge(ahead, progress(epoch, CASES), 1.0)
    study.enqueue_trial({}, user_attrs={"start": "default"})
    default = study.ask()
    _judge(default, progress(2, 0.5 * CASES), 1.0)
    assert rows(study)[CURVES].outcome == "cut short" and rows(study)[CURVES].seconds == 1.0


def test_a_trial_that_only_chance_puts_behind_goes_on() -> None:
    """Where trials are alike, a look cuts one short as seldom as `CHANCE` says, and one that is far behind nearly always."""
    rng, trials = np.random.default_rng(1), 400
    alike = below = 0
    for _ in range(trials):
        rest = [(0.2 + rng.normal(0, 0.3, 60)).tolist() for _ in range(CURVES)]
        alike += is_behind((0.2 + rng.normal(0, 0.3, 60)).tolist(), rest, 0.5)
        below += is_behind((rng.normal(0, 0.3, 60)).tolist(), rest, 0.5)
    assert alike / trials < 2.5 * CHANCE and below / trials > 0.8


def test_trials_that_were_asked_otherwise_are_not_compared() -> None:
    rest = [CASES.tolist() for _ in range(CURVES)]
    assert is_behind((0.5 * CASES).tolist(), rest, 0.5)
    assert not is_behind((0.5 * CASES).tolist(), rest[1:], 0.5), "too few"
    assert not is_behind((0.5 * CASES[1:]).tolist(), rest, 0.5), "other cases"
    assert not is_behind((), [()] * CURVES, 0.5), "a metric that is no mean over cases"


def test_less_is_better_of_errors(study: optuna.Study) -> None:
    trial = study.ask()
    _judge(trial, TrainingProgress("train", 1, 9, "validated", epoch=1, metric="bought/log_loss", validation=0.7), 1.0)
    assert study.trials[0].intermediate_values == {1: -0.7}


def trained(number: int, value: float, **more: Any) -> Trial:
    return Trial(number, "COMPLETE", score=value, value=value, metric="ndcg@20", cases=9, seconds=2.0, **more)


def test_the_table_has_the_best_first_and_compares_with_the_default() -> None:
    trials = [
        trained(0, 0.2),
        trained(1, 0.3, preset="gru4rec", changes={"body.dim": 64}),
        Trial(2, "PRUNED", preset="hstu", seconds=1.0),
        Trial(3, "FAIL", preset="hstu", changes={"body.dim": 8}, error="no | room", seconds=1.0),
        Trial(4, "FAIL", changes={"body.dim": 32}, seconds=1.0),
        Trial(5, "WAITING"),
        trained(6, 0.3, ignored=True),
    ]
    assert [trial.number for trial in in_order(trials)] == [1, 0, 2, 4, 3]
    best = best_of(trials)
    assert best and best.number == 1
    assert "| 1 | 0.3000 | +0.1000 | 2.0 | trained | gru4rec, body.dim 64 |" in table_of(trials)
    assert "0.3000 on 9 validation cases against 0.2000" in summary_of(trials)
    assert summary_of([trained(0, 0.2)]).startswith("The settings as they are given are the best of 1 trial:")
