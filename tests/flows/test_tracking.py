"""Nights recorded by the real MLflow, in SQLite and by its server; and nights without it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from flows import stages
from flows.keeper import below
from flows.night import Stages, run_stages
from flows.prune import prune
from flows.settings.settings import Data, Settings, resolve
from flows.tracking import client, pruned, start, target, ui
from flows.tracking import follow as following
from flows.tracking.flat import flat, is_secret, numbers, without_secrets
from modeling.evaluation.pointer import champion_of
from schemas.artifacts import Artifacts, Manifest
from tests.flows.conftest import LONG_SECONDS, free_port, overnight_here

mlflow = pytest.importorskip("mlflow")
ON = {"OVERNIGHT_MLFLOW": "on"}
SECRET = "s3://key:hunter2@bucket/shop?sig=hunter3"
GIVEN: dict[str, dict[str, Any]] = {
    "training": {"epochs": 2, "tokens_per_step": 64, "threads": 1},
    "body": {"dim": 16, "num_layers": 1},
    "evaluation": {"baselines": ["popularity", "markov"]},
}


@dataclass
class Nights:
    """A root of two nights, of which the first one's model is in service; MLflow has heard of neither."""

    root: Path
    source: Path

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.root)

    def settings(self, seed: int = 17) -> Settings:
        """Those of the first night, whose model is promoted, and with another seed those of the second, whose is not."""
        given: dict[str, Any] = {**GIVEN, "training": GIVEN["training"] | {"seed": seed}}
        given["promotion"] = {"min_gain": -0.9 if seed == 17 else 9.0}
        return resolve(Data(root=self.root, source=str(self.source)), None, given)

    def night(self, seed: int = 17, **data: Any) -> tuple[dict[str, Any], list[str]]:
        """All stages as plain functions: the summary, and what recording said. To that, `data` is what was set."""
        said: list[str] = []

        def recorded(settings: Settings, report: Manifest) -> str:
            given = settings.data.model_copy(update=data)
            return stages.record(replace(settings, data=given), report, lambda line: said.append(str(line)))

        quiet: Callable[[Any], Any] = lambda stage: lambda *given: stage(*given, lambda _: None)  # noqa: E731
        names = [field.name for field in fields(Stages) if field.name != "record"]
        run = Stages(**{name: quiet(getattr(stages, name)) for name in names}, record=recorded)
        return run_stages(self.settings(seed), run), said

    @property
    def client(self) -> Any:
        uri = f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"
        return mlflow.MlflowClient(uri, uri)

    @property
    def champion(self) -> str:
        """What MLflow's alias stands for."""
        return str(self.client.get_model_version_by_alias("demo", "champion").tags["overnight.model"])

    def manifest(self, summary: dict[str, Any], kind: str) -> Manifest:
        return self.artifacts.get(f"{kind}/{Path(summary['artifacts'][kind]).name}")


@pytest.fixture(scope="module")
def made(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    nights = Nights(tmp_path_factory.mktemp("tracked") / "root", shop)
    nights.night(17)
    nights.night(18)
    return nights


def on(patch: pytest.MonkeyPatch) -> None:
    """MLflow switched on, and nothing said of where."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        patch.delenv(name)
    patch.setenv("OVERNIGHT_MLFLOW", "on")


@pytest.fixture(scope="module")
def recorded(made: Nights, tmp_path_factory: pytest.TempPathFactory) -> tuple[Nights, dict[str, Any], list[str]]:
    """The same, after the second night was run again with MLflow; its summary and what recording said."""
    nights = replace(made, root=tmp_path_factory.mktemp("recorded") / "root")
    shutil.copytree(made.root, nights.root)
    with pytest.MonkeyPatch.context() as patch:
        on(patch)
        return nights, *nights.night(18, source=SECRET, changes={"events.password": "hunter4"})


@pytest.fixture
def nights(made: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """A copy of the two nights that MLflow has not heard of, with MLflow switched on."""
    shutil.copytree(made.root, tmp_path / "root")
    on(monkeypatch)
    return replace(made, root=tmp_path / "root")


@pytest.fixture
def copied(
    recorded: tuple[Nights, dict[str, Any], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Nights:
    """A copy of the root that was recorded, at another place, with MLflow switched on."""
    shutil.copytree(recorded[0].root, tmp_path / "copied")
    on(monkeypatch)
    return replace(recorded[0], root=tmp_path / "copied")


def in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Let the client work in this process, which has imported MLflow: where a process of its own is not what is tested."""

    def run(target: target.Target, job: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
        said = io.StringIO()
        with patch.context() as here, contextlib.redirect_stdout(said):
            here.setattr("sys.stdin", io.StringIO(json.dumps(job)))
            target.folder.mkdir(parents=True, exist_ok=True)
            here.chdir(target.folder)
            client.main()
        lines = [json.loads(line) for line in said.getvalue().splitlines() if line.startswith("{")]
        return lines, next((line["failed"] for line in lines if "failed" in line), "")

    for module in (following, pruned):
        patch.setattr(module, "run_client", run)


@pytest.fixture
def client_here(monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)


def no_client(*_: Any) -> Any:
    raise AssertionError("MLflow was started")


def test_a_night_is_recorded_as_it_was_measured(
    recorded: tuple[Nights, dict[str, Any], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    nights, summary, said = recorded
    on(monkeypatch)
    assert "and 1 that were missing" in "\n".join(said), said
    assert [line for line in said if "champion of demo is version" in line], said

    client = nights.client
    experiment = client.get_experiment_by_name("demo")
    runs = {run.data.tags["overnight.model"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 2 and {run.info.status for run in runs.values()} == {"FINISHED"}
    kinds = ("sessions", "models", "evaluations", "comparisons")
    sessions, model, evaluation, comparison = (nights.manifest(summary, kind) for kind in kinds)
    run = runs[model.name]
    metrics = run.data.metrics
    tested = evaluation.facts["model"]
    for scorer, row in evaluation.facts["metrics"].items():
        for name, value in row.items():
            assert metrics[f"{'test' if scorer == tested else scorer}/{name.replace('@', '_at_')}"] == value
    low, high = evaluation.facts["intervals"]["metrics"][tested]["ndcg@20"]
    assert (metrics["test/ndcg_at_20.low"], metrics["test/ndcg_at_20.high"]) == (low, high)
    assert metrics["comparison/new"] == comparison.facts["new"]
    assert metrics["data/events"] == sessions.facts["events"]
    assert metrics["cases/unknown_targets"] == evaluation.facts["unknown_targets"]
    history = json.loads((model.folder / "history.json").read_text())
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert {point.step: point.value for point in curve} == {row["step"]: row["loss"] for row in history}
    assert client.get_metric_history(run.info.run_id, "validation/ndcg_at_20")

    params, tags = run.data.params, run.data.tags
    assert (params["body.dim"], params["training.epochs"], params["training.seed"]) == ("16", "2", "18")
    assert params["training.learning_rate"] == str(model.parameters["training"]["learning_rate"]), "as it was settled"
    assert (params["promotion.min_gain"], params["dataset.name"]) == ("9.0", "demo")
    assert json.loads(params["evaluation.baselines"]) == ["popularity", "markov"]
    assert json.loads(params["dataset.steps"])[0]["name"] == "filter_event_types"
    parents = {kind: tags[f"overnight.{kind.removesuffix('s') if kind != 'sessions' else kind}"] for kind in kinds}
    assert parents == {m.kind: m.name for m in (sessions, model, evaluation, comparison)}
    assert tags["overnight.version"] and tags["overnight.num_days"] == "4"
    data = run.inputs.dataset_inputs[0].dataset
    assert (data.digest, json.loads(data.profile)["events"]) == (sessions.id, sessions.facts["events"])

    version = client.get_model_version_by_alias("demo", "champion")
    assert version.tags["overnight.model"] == champion_of(nights.artifacts, "demo").model  # type: ignore[union-attr]
    in_service = nights.artifacts.get(version.tags["overnight.model"])
    assert version.source == in_service.folder.as_uri() and version.run_id == runs[in_service.name].info.run_id
    assert [int(each.version) for each in client.search_model_versions("name='demo'")] == [2, 1], "in order of nights"
    kept = nights.root / "mlflow" / "artifacts" / "demo" / run.info.run_id / "artifacts"
    assert (kept / "report.html").samefile(summary["report"]), "a second name, no copy"
    files = [path.name for path in nights.root.joinpath("mlflow").rglob("*") if path.is_file()]
    assert not [name for name in files if name.endswith((".safetensors", ".pkl", ".pickle", ".cloudpickle"))]

    monkeypatch.setattr(following, "run_client", no_client)
    again, said = nights.night(18)
    assert again["nothing_to_do"] and not said


@pytest.mark.usefixtures("client_here")
def test_the_alias_follows_the_pointer_and_comes_back(copied: Nights) -> None:
    first = copied.champion
    other = next(f"models/{path.name}" for path in (copied.root / "models").iterdir() if path.name not in first)
    done = overnight_here("promote", other, "--root", copied.root, "--because", "we like it", **ON)
    assert done.returncode == 0 and f"({other}), as the pointer says" in done.stderr, done.stderr
    assert copied.champion == other
    done = overnight_here("rollback", "--root", copied.root)  # while MLflow is off
    assert done.returncode == 0 and not done.stderr and copied.champion == other, done.stderr
    _, said = copied.night(18)
    assert f"({first}), as the pointer says" in "\n".join(said), said
    assert copied.champion == first
    done = overnight_here("promote", "--hold", "--because", "a sale", "--root", copied.root, **ON)
    assert done.returncode == 0, done.stderr
    assert "a sale" in copied.client.get_registered_model("demo").tags["overnight.hold"]

    copied.night(18)  # which the hold made another night
    wrong = copied.client.search_model_versions(f"name='demo' and tags.`overnight.model` = '{other}'")[0].version
    copied.client.set_registered_model_alias("demo", "champion", str(wrong))
    summary, said = copied.night(18)
    assert summary["nothing_to_do"] and len(said) == 1
    assert f"was at version {wrong} ({other}), which the pointer does not say" in said[0] and first in said[0]
    assert copied.champion == first
    copied.client.delete_registered_model_alias("demo", "champion")
    following.follow(copied.artifacts, "demo", said.append)
    assert "was gone" in said[-1] and copied.champion == first
    (copied.root / "champions" / "demo.json").write_text('{"model": null}')  # a person: nothing is in service
    following.follow(copied.artifacts, "demo", said.append)
    assert "champion" not in copied.client.get_registered_model("demo").aliases


@pytest.mark.usefixtures("client_here")
def test_versions_of_removed_models_are_marked(copied: Nights) -> None:
    first = copied.champion
    other = next(f"models/{path.name}" for path in (copied.root / "models").iterdir() if path.name not in first)
    said: list[str] = []
    prune(copied.artifacts, 1, 0, remove=True, say=said.append)
    gone = [name for name in (first, other) if not (copied.root / name).exists()]
    for name in (first, other):
        (version,) = copied.client.search_model_versions(f"name='demo' and tags.`overnight.model` = '{name}'")
        assert ("overnight.pruned" in version.tags) == (name in gone), name
    assert ("MLflow: 1 version is tagged overnight.pruned." in said) == bool(gone)
    pruned.mark(copied.artifacts, {"demo": [other, "models/unheard-of"], "nobody": [first]}, said.append)
    (version,) = copied.client.search_model_versions(f"name='demo' and tags.`overnight.model` = '{other}'")
    assert version.tags["overnight.pruned"].startswith("20")
    assert said[-1] == "MLflow: 1 version is tagged overnight.pruned."


@pytest.mark.usefixtures("client_here")
def test_a_root_that_was_moved_is_recorded_where_it_is(copied: Nights) -> None:
    summary, _ = copied.night(18)
    assert summary["nothing_to_do"]
    assert copied.client.get_model_version_by_alias("demo", "champion").source.startswith(copied.root.as_uri())
    for run in copied.client.search_runs(["1"]):
        assert run.info.artifact_uri.startswith(copied.root.as_uri())


def test_nothing_secret_is_recorded(recorded: tuple[Nights, dict[str, Any], list[str]]) -> None:
    files = [path for path in (recorded[0].root / "mlflow").glob("*") if path.is_file()]
    texts = b"".join(path.read_bytes() for path in files)
    assert b"s3://***@bucket/shop?***" in texts
    assert b"hunter" not in texts


def is_away(port: int, summary: dict[str, Any], said: list[str]) -> bool:
    """Whether a night says in one line, with no secret in it, that MLflow's server does not answer, and goes on."""
    (line,) = said
    assert summary["verdict"] and summary["mlflow"] is None and "The next night catches up." in line
    return f"http://***@127.0.0.1:{port}" in line and "hunter2" not in line


def test_a_server_that_does_not_answer_costs_a_night_one_line(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        assert is_away(port, *nights.night())


def test_a_server_is_told_what_it_missed_and_its_alias_is_mended(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "PATIENCE", LONG_SECONDS)  # the machine may be busy
    with ui.showing(tmp_path / "elsewhere") as shown:
        said: list[str] = []
        until = time.monotonic() + LONG_SECONDS
        while not said and time.monotonic() < until:
            shown.tell(lambda line: said.append(str(line)))
            time.sleep(0.2)
        assert said == [f"MLflow UI: {shown.url}"], said
        assert "hunter" not in (tmp_path / "elsewhere" / "mlflow" / "ui.log").read_text()

        away = free_port()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{away}")
        assert is_away(away, *nights.night(18))
        in_this_process(monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", shown.url)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(LONG_SECONDS))
        summary, said = nights.night(18)
        assert summary["mlflow"].startswith(f"{shown.url}/#/experiments/"), said
        assert "and 1 that were missing" in "\n".join(said)
        client = mlflow.MlflowClient(shown.url, shown.url)
        version = client.get_model_version_by_alias("demo", "champion")
        assert version.source.startswith("overnight://") and version.source.endswith(version.tags["overnight.model"])
        assert "report.html" in [file.path for file in client.list_artifacts(version.run_id)]
        wrong = next(v.version for v in client.search_model_versions("name='demo'") if v.version != version.version)
        client.set_registered_model_alias("demo", "champion", str(wrong))
        _, said = nights.night(18)
        assert "which the pointer does not say" in "\n".join(said)
        processes = below(shown.process.pid) if shown.process else []
    assert processes and not [pid for pid in processes if Path(f"/proc/{pid}").exists()]


def test_nights_without_mlflow_say_nothing_or_one_line(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "is_installed", lambda: False)
    monkeypatch.setattr(following, "is_installed", lambda: False)
    summary, said = nights.night(18)
    assert not said and summary["mlflow"] is None and not (nights.root / "mlflow").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hunter2@db/mlflow")
    _, said = nights.night(18)
    assert len(said) == 1 and "overnight[mlflow]" in said[0] and "hunter2" not in said[0]
    monkeypatch.setenv("OVERNIGHT_MLFLOW", "off")
    assert not nights.night(18)[1]


def test_a_recorder_that_fails_or_hangs_never_fails_a_night(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    (nights.root / "mlflow").mkdir()
    (nights.root / "mlflow" / "mlflow.db").write_text("no database")
    with monkeypatch.context() as here:
        in_this_process(here)
        summary, said = nights.night(18)
    assert summary["verdict"] and len(said) == 1 and "could not be given" in said[0], said
    monkeypatch.setattr(start, "AT_HOME", 0.01)
    summary, said = nights.night(18)
    assert summary["verdict"] and len(said) == 1 and "no end after" in said[0], said


def test_settings_become_flat_names_and_texts() -> None:
    assert flat({"body": {"name": "sasrec", "dim": 64}, "loss": {"options": {}}, "heads": None}) == {
        "body.name": "sasrec",
        "body.dim": "64",
    }
    assert flat({"cutoffs": [5, 10], "on": True, "odd key?": 1}, "e") == {
        "e.cutoffs": "[5, 10]",
        "e.on": "true",
        "e.odd key_": "1",
    }
    assert numbers({"ndcg@20": 0.5, "pair": [1, 2.5], "no": None, "flag": True, "nan": float("nan"), "text": "x"}) == {
        "ndcg_at_20": 0.5,
        "pair.low": 1.0,
        "pair.high": 2.5,
    }


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://me:pw@host/db", "postgresql://***@host/db"),
        ("postgresql+psycopg://me:p%40w@host:5432/db?password=x", "postgresql+psycopg://***@host:5432/db?***"),
        ("s3://bucket/path", "s3://bucket/path"),
        ("https://store/x.parquet?sig=abc&se=1", "https://store/x.parquet?***"),
        ("failed for http://u:p@h:1/x and http://h/y", "failed for http://***@h:1/x and http://h/y"),
        ("https://TOKEN@host/a@b", "https://***@host/a@b"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("postgresql://me:a/b#c@host/db", "postgresql://***@host/db"),
    ],
)
def test_addresses_lose_what_is_secret(text: str, hidden: str) -> None:
    assert without_secrets(text) == hidden


@pytest.mark.parametrize(
    "name", ["password", "api_key", "secretKey", "SASL_PASSWORD", "aws_secret_access_key", "token"]
)
def test_settings_that_are_secret_are_hidden(name: str) -> None:
    assert is_secret(name)
    nested = flat({"source": {name: "hunter2"}, "list": [{name: {"value": "hunter2"}}]})
    assert "hunter2" not in json.dumps(nested)


@pytest.mark.parametrize("name", ["tokens_per_step", "key", "item_key", "author", "secretary", "num_tokens"])
def test_settings_that_only_sound_secret_are_not_hidden(name: str) -> None:
    assert flat({name: "7"}) == {name: "7"}
