"""A model put together from people's own parts: trained, measured, recommending; refused by name where a part is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.new import begin
from flows.settings.settings import Data, resolve
from schemas.dataset import SHIPPED
from schemas.errors import InputError
from tests.flows.conftest import overnight_here, summary_of
from tests.schemas.own import part

LABELS = """  - label_sessions: {event_types: [purchase], name: bought}
"""
DEFAULTS = """  body: {name: my_body, dim: 16, dropout: 0.0}
  objective: my_objective
  loss: {name: my_loss, negatives: {count: 16}}
  heads: {next_item: {}, bought: {name: my_head}}
  evaluation: {baselines: [popularity, my_baseline]}
  training: {epochs: 1, tokens_per_step: 64, threads: 1}
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset that is modelled by parts of its own alone, as they are begun, and a preset."""
    folder = tmp_path_factory.mktemp("own")
    for kind in ("body", "objective", "loss", "head", "baseline", "preset"):
        begin(kind, f"my_{kind}", folder / "plugins")
    demo = (SHIPPED / "demo.yaml").read_text().partition("defaults:")[0]
    demo = demo.replace("name: demo", "name: corner\nplugins: plugins")
    demo = demo.replace("sessions: {rule", "labels: [bought]\nsessions: {rule")
    demo = demo.replace("  - drop_repeats", f"{LABELS}  - drop_repeats")
    (folder / "corner.yaml").write_text(f"{demo}defaults:\n{DEFAULTS}")
    preset = (folder / "plugins/presets/my_preset.yaml").read_text().replace("{name: sasrec,", "{name: my_body,")
    (folder / "plugins/presets/my_preset.yaml").write_text(preset)
    return folder


@pytest.fixture(scope="module")
def measured(own: Path, shop: Path) -> dict[str, Any]:
    """What `overnight evaluate` says of it."""
    where = ("--dataset", own / "corner.yaml", "--source", shop, "--root", own / "root")
    return summary_of(overnight_here("evaluate", *where, "--json"))


def test_own_parts_are_trained_and_measured(own: Path, measured: dict[str, Any]) -> None:
    assert measured["metrics"].keys() == {"my_body", "popularity", "my_baseline", "mean"}
    assert measured["metrics"]["my_body"]["bought/mae"] >= 0
    (config,) = (own / "root" / "models").glob("*/config.json")
    assert json.loads(config.read_text())["own_parts"].keys() == {
        "bodies/my_body", "objectives/my_objective", "losses/my_loss", "heads/my_head",
    }  # fmt: skip


def test_another_part_that_changes_trains_nothing_again(own: Path, shop: Path, measured: dict[str, Any]) -> None:
    """Nor does it measure again, unless it is a baseline that was asked for."""
    begin("body", "unused", own / "plugins")
    where = ("--dataset", own / "corner.yaml", "--source", shop, "--root", own / "root")
    assert summary_of(overnight_here("evaluate", *where, "--json"))["artifact"] == measured["artifact"]
    part(
        own,
        "plugins/baselines/my_baseline.py",
        (own / "plugins/baselines/my_baseline.py").read_text() + "\n# changed\n",
    )
    assert summary_of(overnight_here("evaluate", *where, "--json"))["artifact"] != measured["artifact"]
    assert len([*(own / "root" / "models").iterdir()]) == 1


def test_recommending_needs_the_parts_and_says_which(own: Path, shop: Path, measured: dict[str, Any]) -> None:
    import polars as pl

    item = pl.read_parquet(shop / "items.parquet")["item_id"][0]
    model = next((own / "root" / "models").iterdir())
    where = (item, "--root", own / "root", "--model", model)
    assert summary_of(overnight_here("recommend", *where, "--dataset", own / "corner.yaml", "--json"))["recommended"]
    done = overnight_here("recommend", *where, "--json")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for words in (
        "the body 'my_body'",
        "plugins/bodies/my_body.py",
        "OVERNIGHT_PLUGINS",
        "a model folder holds no code",
    ):
        assert words in done.stderr


def test_a_preset_may_name_own_parts(own: Path, shop: Path) -> None:
    data = Data(dataset=str(own / "corner.yaml"), source=str(shop))
    settings = resolve(data, "my_preset")
    assert settings.model.body.name == "my_body" and settings.model.loss.name == "sampled_softmax"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"evaluation": {"baselines": ["my_baselin"]}}, "Unknown baseline 'my_baselin'. Did you mean 'my_baseline'"),
        ({"body": {"name": "my_bod"}}, "Unknown body 'my_bod'. Did you mean 'my_body'"),
        ({"body": {"name": "my_body", "ff_multiples": 2}}, "Did you mean 'ff_multiple'"),
        ({"loss": {"name": "my_loss", "margin": 0}}, "margin"),
    ],
)
def test_what_is_misspelled_is_answered_before_any_work(
    own: Path, shop: Path, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as error:
        resolve(Data(dataset=str(own / "corner.yaml"), source=str(shop)), None, given)
    assert words in str(error.value)
